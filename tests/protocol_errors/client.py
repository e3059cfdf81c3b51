"""An agent that requests paths over HTTP/1.1; prints one JSON object a line with the response and how it ended.

Arguments: `direct` or `agent`, the server's URL, then requests such as `GET /path`.
"""
import http.client, json, socket, ssl, sys, urllib.parse

way, url, *requests = sys.argv[1:]
url = urllib.parse.urlsplit(url)
if way == "direct":
    real = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **more: real("127.0.0.1", *rest, **more)


def connect():
    if url.scheme == "http":
        return http.client.HTTPConnection(url.hostname, url.port, timeout=100)
    context = ssl.create_default_context()
    # Python accepts a missing close_notify by default; other clients do not.
    wrap = context.wrap_socket
    context.wrap_socket = lambda *a, **k: wrap(*a, **{**k, "suppress_ragged_eofs": False})
    return http.client.HTTPSConnection(url.hostname, url.port, timeout=100, context=context)


kept = connect()
for request in requests:
    method, path = request.split()
    told = {"request": request, "status": None, "length": 0, "end": "whole", "text": ""}
    body = bytearray()
    try:
        if not path.startswith("/kept"):
            kept = connect()
        form = b"a body" if method == "POST" else None
        kept.request(method, path, form, {"Authorization": "Bearer AS_SECRET_API_KEY"})
        answer = kept.getresponse()
        told["status"] = answer.status
        told["refused"] = answer.headers.get("x-as-refused")
        while block := answer.read1(65536):
            body += block
        # Truncations that `read1` does not report.
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        answer.read()
    except Exception as error:
        told["end"] = type(error).__name__
    told["length"] = len(body)
    told["text"] = body[:400].decode("latin-1")
    print(json.dumps(told), flush=True)
