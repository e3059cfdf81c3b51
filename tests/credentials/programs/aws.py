"""Requests of AWS clients, signed with the dummy keys of the environment. Argument: the server's URL.

Prints the server's verdict on each."""
import http.client
import json
import sys
from urllib.parse import urlsplit

import boto3
from botocore.auth import S3SigV4Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.session import Session

import ssl

url = sys.argv[1]
keys = Session().get_credentials().get_frozen_credentials()


def send(name, method, url, headers, body):
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.netloc, context=ssl.create_default_context())
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse().read()
    try:
        said = json.loads(answer)
    except ValueError:
        said = {"error": answer.decode(errors="replace")}
    print(f"{name}:", said.get("verified") or said.get("message") or said["error"])


def signed(name, auth, method, path, body=b"", headers=None, more=None):
    request = AWSRequest(method=method, url=url + path, data=body, headers=headers or {})
    auth.add_auth(request)
    prepared = request.prepare()
    send(name, method, prepared.url, {**dict(prepared.headers.items()), **(more or {})}, prepared.body)


# Other services than S3: no hash in a header, double encoding, normalised paths.
signed("dynamodb", SigV4Auth(keys, "dynamodb", "eu-west-1"), "POST", "/", b'{"TableName":"t"}',
       {"X-Amz-Target": "DynamoDB_20120810.DescribeTable", "Content-Type": "application/x-amz-json-1.0"})
signed("lambda", SigV4Auth(keys, "lambda", "us-east-1"), "GET", "/2015-03-31/functions/a%3Ab%20c?B=2&A=1&A=%20x%20y&empty")
signed("s3", S3SigV4Auth(keys, "s3", "us-east-1"), "PUT", "/bucket/a%20key/%E2%82%AC~!'()*?tagging", b"body",
       {"Content-Type": "text/plain", "x-amz-meta-who": "a   b"})

# Signed URLs.
s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1",
                  config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
presigned = s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "a key/+ü", "VersionId": "1 2"})
send("presigned get", "GET", presigned, {}, None)
presigned = s3.generate_presigned_url("put_object", Params={"Bucket": "b", "Key": "k", "ContentType": "text/x"})
send("presigned put", "PUT", presigned, {"Content-Type": "text/x"}, b"z" * 100000)
signed("presigned other", SigV4QueryAuth(keys, "execute-api", "us-east-1", expires=60), "GET", "/stage/pets?x=1")

# Chunked bodies.
SEED = {"x-amz-date": "20261125T000000Z"}


def credential(scheme, scope, signed):
    return f"{scheme} Credential={keys.access_key}/20261125/{scope}/aws4_request, SignedHeaders={signed}, Signature={'0' * 64}"


def streamed(name, kind, chunks, trailer="", width=64, scope="us-east-1/s3", scheme="AWS4-HMAC-SHA256", more=None):
    body = b"".join(f"{len(chunk):x};chunk-signature={'0' * width}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    body += f"0;chunk-signature={'0' * width}\r\n".encode()
    if trailer:
        body += f"{trailer}\r\nx-amz-trailer-signature:{'0' * width}\r\n".encode()
    body += b"\r\n"
    headers = {
        **SEED,
        "x-amz-content-sha256": kind,
        "x-amz-decoded-content-length": str(sum(map(len, chunks))),
        "content-encoding": "aws-chunked",
        "authorization": credential(scheme, scope, "content-encoding;host;x-amz-content-sha256;x-amz-date"),
        **(more or {}),
    }
    send(name, "PUT", url + "/bucket/streamed", headers, body)


PIECES = [b"a" * 65536, b"b" * 65536, b"c" * 1000]
CHECKSUM = "x-amz-checksum-crc32c:sOO8/Q=="
streamed("streamed", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", PIECES)
streamed("streamed with trailer", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", PIECES, CHECKSUM,
         more={"x-amz-trailer": "x-amz-checksum-crc32c"})
plain = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in PIECES)
send("streamed unsigned", "PUT", url + "/bucket/streamed", {
    **SEED,
    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "x-amz-trailer": "x-amz-checksum-crc32c",
    "x-amz-decoded-content-length": "132072",
    "authorization": credential("AWS4-HMAC-SHA256", "us-east-1/s3", "host;x-amz-content-sha256;x-amz-date"),
}, plain + f"0\r\n{CHECKSUM}\r\n\r\n".encode())

# Version 4A.
ASYMMETRIC = {"x-amz-region-set": "us-*,eu-west-1"}
send("v4a", "GET", url + "/bucket/a%20key?x=1", {
    **SEED,
    **ASYMMETRIC,
    "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
    "authorization": credential("AWS4-ECDSA-P256-SHA256", "s3", "host;x-amz-content-sha256;x-amz-date;x-amz-region-set"),
}, None)
streamed("v4a streamed", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER", PIECES, CHECKSUM, 144, "s3",
         "AWS4-ECDSA-P256-SHA256", {**ASYMMETRIC, "x-amz-trailer": "x-amz-checksum-crc32c"})

# Unsigned by the client, signed by a rule that names one region and one service.
send("unsigned", "GET", url + "/bucket/key", {}, None)
send("other scheme", "GET", url + "/bucket/key", {"authorization": "Bearer x"}, None)
streamed("damaged", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", PIECES, width=63)
