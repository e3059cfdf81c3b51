"""moto's S3 over TLS with one user's key; every request must be signed with that key.

Arguments: certificate and key, in PEM files. Prints its port, the key's id and the key.
"""
import json
import logging
import os
import sys

# The bucket is in the path, whatever the host name.
os.environ["S3_IGNORE_SUBDOMAIN_BUCKETNAME"] = "true"

from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionAuthenticatorMixin
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
user = iam.create_user("us-east-1", "agent")
everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
iam.put_user_policy("agent", "everything", json.dumps(everything))
key = iam.create_access_key("agent")
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
ActionAuthenticatorMixin.request_count = 0


class Quiet(WSGIRequestHandler):
    def log_request(self, code="-", size="-"):
        pass


logging.disable(logging.CRITICAL)
server = make_server(
    "127.0.0.1",
    0,
    DomainDispatcherApplication(create_backend_app),
    threaded=True,
    request_handler=Quiet,
    ssl_context=(sys.argv[1], sys.argv[2]),
)
print(server.server_port, flush=True)
print(key.access_key_id, flush=True)
print(key.secret_access_key, flush=True)
server.serve_forever()
