"""A server that checks keyed hashes: Stripe's with Stripe's own library, the others with `hmac`.

Arguments: certificate, key, and the secret. Prints its port; the response says whether the signature is valid.
"""
import base64
import hashlib
import hmac
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import stripe

certificate, key, SECRET = sys.argv[1:]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            getattr(self, self.path.strip("/").split("?")[0])(body)
            said = "right"
        except Exception as error:
            said = f"wrong: {type(error).__name__}: {error}"
        said = f"{said} {self.headers.get('x-signature', '')}".strip().encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def stripe(self, body):
        stripe.WebhookSignature.verify_header(body.decode(), self.headers["stripe-signature"], SECRET, 60)

    def slack(self, body):
        timestamp = self.headers["x-slack-request-timestamp"]
        assert abs(time.time() - int(timestamp)) < 60, timestamp
        right = hmac.new(SECRET.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(f"v0={right}", self.headers["x-slack-signature"])

    def exchange(self, body):
        """As crypto exchanges require: method, path and query too, in base64."""
        text = f"{self.headers['x-timestamp']}POST{self.path}&{self.headers['host']}".encode() + body
        right = base64.b64encode(hmac.new(SECRET.encode(), text, hashlib.sha512).digest()).decode()
        assert hmac.compare_digest(right, self.headers["x-signature"])


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
