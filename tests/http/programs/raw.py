"""Raw HTTP/1 requests over TLS, valid and invalid, with the expected status codes. Prints the differences."""
import socket, ssl, sys

PORT = int(sys.argv[1])
HOST = f"Host: api.test:{PORT}\r\n"
GET = f"GET /good HTTP/1.1\r\n{HOST}\r\n"
BAD = f"GET /bad HTTP/1.1\r\n{HOST}"
POST = f"POST /bad HTTP/1.1\r\n{HOST}"
GOOD_POST = f"POST /good HTTP/1.1\r\n{HOST}"


def exchange(data):
    """The status codes in order, until the connection ends or is idle."""
    context = ssl.create_default_context()
    with socket.create_connection(("api.test", PORT)) as tcp:
        with context.wrap_socket(tcp, server_hostname="api.test") as stream:
            stream.settimeout(2)
            got = b""
            try:
                for part in data if isinstance(data, list) else [data]:
                    stream.sendall(part if isinstance(part, bytes) else part.encode("latin-1"))
                while piece := stream.recv(65536):
                    got += piece
                got += b"<end>"
            except socket.timeout:
                got += b"<quiet>"
            except (ConnectionError, ssl.SSLError):
                got += b"<reset>"
    return got


def codes(got):
    import re
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3})", got)]


def head(lines):
    return f"GET /bad HTTP/1.1\r\n{HOST}{lines}\r\n\r\n"


CLOSE = f"GET /good HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
CASES = [
    # Well-formed.
    ("plain", CLOSE, [200]),
    ("pipelined", GET + GET + CLOSE, [200, 200, 200]),
    ("byte by byte", [bytes([b]) for b in CLOSE.encode()], [200]),
    ("HTTP/1.0", f"GET /good HTTP/1.0\r\n{HOST}\r\n", [200]),
    ("HTTP/1.0 kept", f"GET /good HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n" + CLOSE, [200, 200]),
    ("HTTP/1.0 without Host", "GET /good HTTP/1.0\r\n\r\n", [200]),
    ("absolute URI", f"GET https://api.test:{PORT}/good HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", [200]),
    ("sized body", GOOD_POST + "Content-Length: 5\r\n\r\nhello" + CLOSE, [200, 200]),
    ("chunked body", GOOD_POST + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + CLOSE, [200, 200]),
    ("chunk extension", GOOD_POST + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n" + CLOSE, [200, 200]),
    ("trailers", GOOD_POST + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-T: v\r\n\r\n" + CLOSE, [200, 200]),
    ("empty line before", "\r\n" + CLOSE, [200]),
    ("judged again", GET + f"GET /denied HTTP/1.1\r\n{HOST}\r\n" + CLOSE, [200, 403, 200]),
    ("HEAD", f"HEAD /good HTTP/1.1\r\n{HOST}\r\n" + CLOSE, [200, 200]),
    ("204", f"GET /good/status?code=204 HTTP/1.1\r\n{HOST}\r\n" + CLOSE, [204, 200]),
    ("304", f"GET /good/status?code=304 HTTP/1.1\r\n{HOST}\r\n" + CLOSE, [304, 200]),
    ("100 only once allowed", [GOOD_POST + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", "hello" + CLOSE], [100, 200, 200]),
    ("refused without 100", f"POST /denied HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", [403]),
    # Conflicting framing.
    ("CL CL", POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", [400]),
    ("CL CL alike", POST + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", [400]),
    ("CL list", POST + "Content-Length: 5, 5\r\n\r\nhello", [400]),
    ("CL plus", POST + "Content-Length: +5\r\n\r\nhello", [400]),
    ("CL minus", POST + "Content-Length: -5\r\n\r\nhello", [400]),
    ("CL hex", POST + "Content-Length: 0x5\r\n\r\nhello", [400]),
    ("CL empty", POST + "Content-Length:\r\n\r\nhello", [400]),
    ("CL overflow", POST + "Content-Length: 99999999999999999999999\r\n\r\nhello", [400]),
    ("CL TE", POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET, [400]),
    ("TE CL", POST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + GET, [400]),
    ("TE TE", POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", [400]),
    ("TE gzip", POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", [400]),
    ("TE not chunked", POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", [400]),
    ("TE vertical tab", POST + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", [400]),
    ("TE space before colon", POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", [400]),
    ("TE in 1.0", f"POST /bad HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    # Ambiguous heads.
    ("bare LF", GET.replace("\r\n", "\n").replace("good", "bad"), [400]),
    ("one bare LF", BAD + "X: a\nY: b\r\n\r\n", [400]),
    ("bare CR", BAD + "X: a\rY: b\r\n\r\n", [400]),
    ("folded", head("X: a\r\n b"), [400]),
    ("folded first", f"GET /bad HTTP/1.1\r\n {HOST}\r\n", [400]),
    ("NUL in value", head("X: a\0b"), [400]),
    ("NUL in name", head("X\0: a"), [400]),
    ("NUL in target", f"GET /bad\0 HTTP/1.1\r\n{HOST}\r\n", [400]),
    ("control in value", head("X: a\x01b"), [400]),
    ("space in name", head("X Y: a"), [400]),
    ("no name", head(": a"), [400]),
    ("no colon", head("nothing"), [400]),
    ("two hosts", head("Host: other.test"), [400]),
    ("other host", "GET /bad HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n", [421]),
    ("space in target", f"GET /bad x HTTP/1.1\r\n{HOST}\r\n", [505]),
    ("no version", f"GET /bad\r\n{HOST}\r\n", [400]),
    ("version 2", f"GET /bad HTTP/2.0\r\n{HOST}\r\n", [505]),
    ("lower-case version", f"GET /bad http/1.1\r\n{HOST}\r\n", [505]),
    ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505]),
    ("method of symbols", f"G@T /bad HTTP/1.1\r\n{HOST}\r\n", [400]),
    ("huge header", head("X: " + "x" * 70000), [431]),
    ("huge target", f"GET /bad{'x' * 70000} HTTP/1.1\r\n{HOST}\r\n", [431]),
    ("many headers", head("\r\n".join(f"X-{n}: y" for n in range(200))), [431]),
    ("CONNECT", f"CONNECT api.test:{PORT} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", [400]),
    ("garbage", b"\x00\x01\x02\x03garbage\r\n\r\n", [400]),
    # After a valid request.
    ("good then bad", GET + GET + BAD + "X: a\nY: b\r\n\r\n" + GET, [200, 200, 400]),
    # Bodies that contradict their framing: their request fails.
    ("chunk too long", POST + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n", [400]),
    ("chunk of no size", POST + "Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n", [400]),
    ("chunk with bare LF", POST + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", [400]),
    ("trailer that frames", POST + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", [400]),
]

for name, data, expected in CASES:
    got = exchange(data)
    if codes(got) != expected:
        print(f"{name}: {codes(got)} instead of {expected}: {got[:300]}")
print("cases", len(CASES))
