"""GitHub's and Google's token endpoints for JWTs, and an API that takes a JWT: PyJWT verifies all three.

Arguments: certificate, key, and the public key in PEM. Prints its port.
"""
import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import jwt

certificate, key, public = sys.argv[1:]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def bearer(self):
        scheme, token = self.headers["authorization"].split(" ")
        assert scheme == "Bearer", scheme
        return token

    def github(self, body):
        claims = jwt.decode(self.bearer(), public, algorithms=["RS256"], options={"require": ["iat", "exp", "iss"]})
        assert claims["iss"] == "Iv1.app", claims
        assert claims["exp"] - claims["iat"] <= 600, claims
        assert json.loads(body) == {"repositories": ["one"], "permissions": {"contents": "read"}}, body
        assert "agentsecrets" in self.headers["user-agent"]
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return 201, {"token": "ghs_installationtoken16C7e42F292c6912E7", "expires_at": ends, "permissions": {}}

    def google(self, body):
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer", form
        audience = f"https://{self.headers['host']}/token"
        claims = jwt.decode(form["assertion"], public, algorithms=["RS256"], audience=audience)
        assert jwt.get_unverified_header(form["assertion"])["kid"] == "key-1"
        assert claims["iss"] == "robot@project.iam.test" and claims["scope"] == "https://scope/a https://scope/b"
        assert claims["sub"] == "person@project.test"
        return 200, {"access_token": "ya29.googletokenA0AfH6SMB", "expires_in": 3599, "token_type": "Bearer"}

    def signed(self, _):
        claims = jwt.decode(self.bearer(), public, algorithms=["RS256"], audience=["a", "b"], issuer="us",
                            options={"require": ["iat", "exp"]})
        assert claims["exp"] - claims["iat"] == 120 and claims["level"] == 3 and claims["ok"] is True, claims
        return 200, {"said": "a good JWT"}

    def taken(self, _):
        return 200, {"said": {"ghs_": "GitHub's token", "ya29": "Google's token"}[self.bearer()[:4]]}

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        ways = {"/app/installations/42/access_tokens": self.github, "/token": self.google, "/signed": self.signed}
        try:
            status, said = ways.get(self.path, self.taken)(body)
        except Exception as error:
            status, said = 401, {"said": f"{type(error).__name__}: {error}"}
            print(said, file=sys.stderr, flush=True)
        said = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = answer


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
