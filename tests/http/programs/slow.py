"""Slow clients: how long each is tolerated, and the response it gets."""
import socket, ssl, sys, time

PORT = int(sys.argv[1])
HEAD = f"HTTP/1.1\r\nHost: api.test:{PORT}\r\n"


def connect(tls=True, alpn=None):
    tcp = socket.create_connection(("api.test", PORT))
    tcp.settimeout(15)
    if not tls:
        return tcp
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols([alpn])
    return context.wrap_socket(tcp, server_hostname="api.test")


def until_end(stream):
    got = b""
    try:
        while piece := stream.recv(65536):
            got += piece
    except socket.timeout:
        return "never"
    except OSError:
        pass
    return got.split(b"\r\n")[0].decode("latin-1") or "end"


def timed(name, stream, *sent):
    begun = time.time()
    for part in sent:
        stream.sendall(part)
    told = until_end(stream)
    took = time.time() - begun
    print(name, "|", told, "|", "in time" if took < 6 else f"after {took:.1f} s", flush=True)


timed("silent", connect(tls=False))
timed("half a hello", connect(tls=False), b"\x16\x03\x01\x02\x00\x01")
timed("half a head", connect(), f"GET / {HEAD}X: ".encode())
timed("idle", connect())
timed("idle after one", connect(), f"GET /echo {HEAD}\r\n".encode())
timed("idle HTTP/2", connect(alpn="h2"), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
timed("half a body", connect(), f"POST /echo {HEAD}Content-Length: 9\r\n\r\nhalf".encode())
timed("no answer", connect(), f"GET /never {HEAD}Connection: close\r\n\r\n".encode())
timed("half an answer", connect(), f"GET /held {HEAD}Connection: close\r\n\r\n".encode())
