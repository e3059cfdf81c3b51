"""An OpenTelemetry collector with OpenTelemetry's own messages: it decodes posts to /v1/logs and returns them at /received.
It is not ready for its first request, and refuses everything at /refuses."""
import http.server, json, ssl, sys
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

received, answered = [], []


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def pairs(attributes):
    return {pair.key: plain(pair.value) for pair in attributes}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, json.dumps({"received": received, "answered": answered}).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/logs" or self.headers["Content-Type"] != "application/x-protobuf":
            answered.append(400)
            return self.answer(400, b"")
        if not answered:
            answered.append(503)
            return self.answer(503, b"", [("Retry-After", "0")])
        request = ExportLogsServiceRequest.FromString(body)
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    received.append({
                        "resource": pairs(resource.resource.attributes),
                        "key": self.headers["x-collector-key"],
                        "event": record.event_name,
                        "severity": record.severity_number,
                        "time": record.time_unix_nano,
                        "body": plain(record.body),
                        **pairs(record.attributes),
                    })
        answered.append(200)
        self.answer(200, ExportLogsServiceResponse().SerializeToString())

    def log_message(self, *words):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
