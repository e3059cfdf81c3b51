"""One call of each kind, and one that fails, over a secure channel with its default roots."""
import os, sys

import grpc

target = sys.argv[1].removeprefix("https://")
channel = grpc.secure_channel(target, grpc.ssl_channel_credentials())
metadata = [("authorization", "Bearer " + os.environ["API_KEY"])]
unary = channel.unary_unary("/demo.Echo/Say")
answer, call = unary.with_call(b"hello", metadata=metadata, timeout=20)
print("unary", answer.decode(), call.code().name, dict(call.trailing_metadata())["x-note"])
stream = channel.unary_stream("/demo.Echo/Count")(b"3", metadata=metadata, timeout=20)
print("stream", b" ".join(stream).decode())
both = channel.stream_stream("/demo.Echo/Repeat")(iter([b"a", b"b"]), metadata=metadata, timeout=20)
print("both", b" ".join(both).decode())
try:
    channel.unary_unary("/demo.Echo/Fail")(b"", metadata=metadata, timeout=20)
except grpc.RpcError as error:
    print("failed", error.code().name, error.details())
