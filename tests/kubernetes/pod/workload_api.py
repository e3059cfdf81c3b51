"""A SPIFFE Workload API with the standard's messages from its authors' package.

workload_api.py SOCKET

It reads its next response as one JSON object a line, and prints `said` once it applies:
{"issue": [[ID, SECONDS], …]}  identities, each valid for so long from now
{"odd": KIND}                  an invalid response: `empty`, `bytes`, or `authority`, whose leaf may sign others
{"deny": MESSAGE}              the error for an unregistered workload
"""

import datetime
import json
import os
import sys
import threading
from concurrent import futures

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from spiffe._proto import workload_pb2 as messages
from spiffe._proto import workload_pb2_grpc as service

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a cluster's authority")])
DER = serialization.Encoding.DER


def certificate(subject, key, seconds, is_authority, uri=None):
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"],
        False,
    )
    usage |= {"digital_signature": uri is not None, "key_cert_sign": is_authority, "crl_sign": is_authority}
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=60))
        .not_valid_after(now + datetime.timedelta(seconds=seconds))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    if uri:
        made = made.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
    return made.sign(KEY, hashes.SHA256()).public_bytes(DER)


BUNDLE = certificate(NAME, KEY, 86400, True)


def svid(identity, seconds, is_authority=False):
    key = ec.generate_private_key(ec.SECP256R1())
    return messages.X509SVID(
        spiffe_id=identity,
        x509_svid=certificate(x509.Name([]), key, seconds, is_authority, identity),
        x509_svid_key=key.private_bytes(
            DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        bundle=BUNDLE,
    )


def answer(word):
    match word:
        case {"issue": issued}:
            return messages.X509SVIDResponse(svids=[svid(*one) for one in issued])
        case {"odd": "empty"}:
            return messages.X509SVIDResponse()
        case {"odd": "bytes"}:
            odd = messages.X509SVID(spiffe_id="spiffe://example.org/a", x509_svid=b"\x30\x03abc", x509_svid_key=b"k", bundle=b"b")
            return messages.X509SVIDResponse(svids=[odd])
        case {"odd": "authority"}:
            return messages.X509SVIDResponse(svids=[svid("spiffe://example.org/ns/agents/sa/coder", 3600, True)])


class WorkloadApi(service.SpiffeWorkloadAPIServicer):
    def __init__(self):
        self.changed = threading.Condition()
        self.word, self.number = {"deny": "no identity issued"}, 0

    def say(self, word):
        with self.changed:
            self.word, self.number = word, self.number + 1
            self.changed.notify_all()

    def FetchX509SVID(self, request, context):
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        heard = -1
        while context.is_active():
            with self.changed:
                self.changed.wait_for(lambda: self.number != heard, timeout=0.1)
                if self.number == heard:
                    continue
                word, heard = self.word, self.number
            if "deny" in word:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, word["deny"])
            yield answer(word)


def main():
    socket, api = sys.argv[1], WorkloadApi()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    service.add_SpiffeWorkloadAPIServicer_to_server(api, server)
    for line in sys.stdin:
        api.say(json.loads(line))
        # It serves once it has a response.
        if api.number == 1:
            server.add_insecure_port(f"unix:{socket}")
            server.start()
            os.chmod(socket, 0o777)
        print("said", flush=True)
    os._exit(0)


main()
