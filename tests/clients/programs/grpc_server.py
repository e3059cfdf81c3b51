"""A service without generated code. Prints its port, then each call's credential."""
import sys
from concurrent import futures

import grpc


def seen(context):
    print(dict(context.invocation_metadata())["authorization"], flush=True)


def say(request, context):
    seen(context)
    context.set_trailing_metadata([("x-note", "a trailer")])
    return request


def count(request, context):
    seen(context)
    for number in range(int(request)):
        yield str(number).encode()


def repeat(requests, context):
    seen(context)
    yield from requests


def fail(request, context):
    seen(context)
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing is there")


handlers = grpc.method_handlers_generic_handler("demo.Echo", {
    "Say": grpc.unary_unary_rpc_method_handler(say),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Repeat": grpc.stream_stream_rpc_method_handler(repeat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
})
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers([handlers])
certificate, key = (open(path, "rb").read() for path in sys.argv[1:3])
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
server.start()
print(port, flush=True)
server.wait_for_termination()
