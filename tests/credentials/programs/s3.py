"""Uses S3 through boto3 with keys from the environment. Argument: the endpoint."""
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

s3 = boto3.client(
    "s3",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
)
s3.create_bucket(Bucket="things")
s3.put_object(Bucket="things", Key="a key/with spaces.txt", Body=b"some text", Metadata={"who": "a  b"})
body = s3.get_object(Bucket="things", Key="a key/with spaces.txt")["Body"].read()
print("got", body.decode())


class Endless:
    """A body that is read once and cannot be rewound."""

    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return b"x" * size


multipart = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=2)
s3.upload_fileobj(Endless(11 << 20), "things", "large", Config=multipart)
print("large", s3.head_object(Bucket="things", Key="large")["ContentLength"])
listed = s3.list_objects_v2(Bucket="things", Prefix="l")
print("listed", [entry["Key"] for entry in listed["Contents"]])
s3.delete_object(Bucket="things", Key="large")
try:
    s3.get_object(Bucket="things", Key="large")
except ClientError as error:
    print("gone", error.response["Error"]["Code"])
