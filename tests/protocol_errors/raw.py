"""An agent that sends raw bytes; prints one JSON object a line with the reply and the end of the connection.

Arguments: host, port. Input: lines such as `tls:HEX`: over TLS, over TCP (`tcp:`), or over TCP with an end of
sending after it (`end:`).
"""
import json, socket, ssl, sys

host, port = sys.argv[1:]
for case in sys.stdin:
    way, _, data = case.strip().partition(":")
    got, end = b"", "closed"
    try:
        link = socket.create_connection((host, int(port)), timeout=40)
        if way == "tls":
            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
            link = context.wrap_socket(link, server_hostname=host)
        try:
            link.sendall(bytes.fromhex(data))
            if way == "end":
                link.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        while block := link.recv(65536):
            got += block
    except OSError as error:
        end = type(error).__name__
    print(json.dumps({"end": end, "got": got[:4000].decode("latin-1")}), flush=True)
