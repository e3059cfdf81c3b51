"""A server that checks AWS signatures with botocore, and those of version 4A with `cryptography`.

Arguments: certificate, key, and the valid access key, secret key and session token ("-" for
none). Prints its port. The response is {"verified": "v4 header s3", ...} or {"error": why}.
"""
import hashlib
import hmac
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

certificate, key, ACCESS, SECRET, TOKEN = sys.argv[1:]
TOKEN = None if TOKEN == "-" else TOKEN
EMPTY = hashlib.sha256(b"").hexdigest()
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Wrong(Exception):
    pass


def check(holds, why):
    if not holds:
        raise Wrong(why)


def key_of_4a():
    """The public half of the key that version 4A derives from a secret key."""
    for counter in range(1, 255):
        context = ACCESS.encode() + bytes([counter])
        fixed = b"\0\0\0\1" + b"AWS4-ECDSA-P256-SHA256" + b"\0" + context + (256).to_bytes(4, "big")
        number = int.from_bytes(hmac.new(b"AWS4A" + SECRET.encode(), fixed, hashlib.sha256).digest(), "big")
        if number <= ORDER - 2:
            return ec.derive_private_key(number + 1, ec.SECP256R1()).public_key()


class Claim:
    def __init__(self, algorithm, credential, signed, signature, date, regions, token):
        self.is_4a = {"AWS4-HMAC-SHA256": False, "AWS4-ECDSA-P256-SHA256": True}[algorithm]
        access, *scope = credential.split("/")
        check(access == ACCESS, f"the access key is {access}")
        check(scope[-1] == "aws4_request" and scope[0] == date[:8], f"the scope is {scope}")
        self.scope = "/".join(scope)
        self.service = scope[-2]
        self.region = regions if self.is_4a else scope[1]
        self.algorithm, self.signed, self.signature, self.date = algorithm, signed.split(";"), signature, date
        check("host" in self.signed, "the host is not signed")
        check(token == TOKEN, f"the session token is {token}")

    def verify(self, text, signature, what):
        if self.is_4a:
            raw = bytes.fromhex(signature.rstrip("*"))
            key_of_4a().verify(raw, text.encode(), ec.ECDSA(SHA256()))
        else:
            made = b"AWS4" + SECRET.encode()
            for part in self.scope.split("/"):
                made = hmac.new(made, part.encode(), hashlib.sha256).digest()
            right = hmac.new(made, text.encode(), hashlib.sha256).hexdigest()
            check(right == signature, f"{what}: the signature is wrong")

    def chunk(self, before, data, signature):
        hashed = f"{EMPTY}\n{hashlib.sha256(data).hexdigest()}"
        text = f"{self.algorithm}-PAYLOAD\n{self.date}\n{self.scope}\n{before.rstrip('*')}\n{hashed}"
        self.verify(text, signature, "a chunk")

    def trailer(self, before, lines, signature):
        canonical = "".join(sorted(f"{line.split(':')[0].lower()}:{line.split(':', 1)[1].strip()}\n" for line in lines))
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"{self.algorithm}-TRAILER\n{self.date}\n{self.scope}\n{before.rstrip('*')}\n{hashed}"
        self.verify(text, signature, "the trailer")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def answer(self):
        body = self.body()
        try:
            said = {"verified": self.verified(body), "headers": sorted(name.lower() for name in self.headers)}
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        said["authorization"] = self.headers.get("authorization")
        said["path"] = self.path
        payload = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_PUT = do_POST = do_HEAD = answer

    def verified(self, body):
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        in_query = "X-Amz-Signature" in query
        if in_query:
            check("authorization" not in self.headers, "signed twice")
            claim = Claim(
                query["X-Amz-Algorithm"],
                query["X-Amz-Credential"],
                query["X-Amz-SignedHeaders"],
                query["X-Amz-Signature"],
                query["X-Amz-Date"],
                query.get("X-Amz-Region-Set"),
                query.get("X-Amz-Security-Token"),
            )
        else:
            algorithm, fields = self.headers["authorization"].split(" ", 1)
            fields = dict(field.strip().split("=", 1) for field in fields.split(","))
            claim = Claim(
                algorithm,
                fields["Credential"],
                fields["SignedHeaders"],
                fields["Signature"],
                self.headers["x-amz-date"],
                self.headers.get("x-amz-region-set"),
                self.headers.get("x-amz-security-token"),
            )
            missing = {name.lower() for name in self.headers if name.lower().startswith("x-amz-")} - set(claim.signed)
            check(not missing, f"not signed: {missing}")
        is_s3 = claim.service == "s3"
        kinds = {(True, True): S3SigV4QueryAuth, (True, False): S3SigV4Auth,
                 (False, True): SigV4QueryAuth, (False, False): SigV4Auth}
        auth = kinds[is_s3, in_query](Credentials(ACCESS, SECRET, TOKEN), claim.service, claim.region)
        path, _, rest = self.path.partition("?")
        rest = "&".join(pair for pair in rest.split("&") if not pair.startswith("X-Amz-Signature="))
        url = f"https://{self.headers['host']}{path}" + (f"?{rest}" if rest else "")
        headers = {name: value for name, value in self.headers.items() if name.lower() in claim.signed}
        check(len(headers) == len(claim.signed), f"signed, but not there: {claim.signed}")
        request = AWSRequest(method=self.command, url=url, data=body, headers=headers)
        canonical = auth.canonical_request(request)
        # Other clients may sign headers that botocore leaves out.
        lines = canonical.split("\n")
        names = ";".join(claim.signed)
        check(lines[-2] == names, f"botocore signs {lines[-2]}, the request says {names}")
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"{claim.algorithm}\n{claim.date}\n{claim.scope}\n{hashed}"
        claim.verify(text, claim.signature, "the request\n" + canonical)
        kind = self.headers.get("x-amz-content-sha256", "")
        how = ""
        if kind.startswith("STREAMING-AWS4"):
            how = f" {self.chunks(claim, body, kind.endswith('-TRAILER'))} chunks"
        elif kind.startswith("STREAMING-"):
            how = " unsigned chunks"
        elif len(kind) == 64:
            check(kind == hashlib.sha256(body).hexdigest(), "the body is another")
        version = "v4a" if claim.is_4a else "v4"
        return f"{version} {'query' if in_query else 'header'} {claim.service} {claim.region}{how}"

    def chunks(self, claim, body, has_trailer):
        before, count, length = claim.signature, 0, 0
        while True:
            line, _, body = body.partition(b"\r\n")
            size, signature = line.decode().split(";chunk-signature=")
            data, body = body[: int(size, 16)], body[int(size, 16):]
            claim.chunk(before, data, signature)
            before, count, length = signature, count + 1, length + len(data)
            if not data:
                break
            check(body.startswith(b"\r\n"), "a chunk is longer")
            body = body[2:]
        if has_trailer:
            *lines, last = [line for line in body.decode().split("\r\n") if line]
            claim.trailer(before, lines, last.removeprefix("x-amz-trailer-signature:"))
        else:
            check(body == b"\r\n", f"the body ends in {body}")
        check(length == int(self.headers["x-amz-decoded-content-length"]), "the length is another")
        return count


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
