"""HTTP/2 frames. `attack`: frames of a hostile client, each of which must end in an error, not in silence.
`trailers`: a request with trailers, and the answer's."""
import socket, ssl, struct, sys, time

PORT = int(sys.argv[1])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONT = range(10)


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def literal(name, value):
    """A header without compression or index."""
    def text(b):
        n = len(b)
        if n < 127:
            return bytes([n]) + b
        n -= 127
        out = b"\x7f"
        while n >= 128:
            out += bytes([n % 128 + 128])
            n //= 128
        return out + bytes([n]) + b
    return b"\x00" + text(name) + text(value)


def request(path=b"/good", method=b"GET", more=()):
    pairs = [(b":method", method), (b":scheme", b"https"), (b":authority", b"api.test:%d" % PORT), (b":path", path)]
    return b"".join(literal(*pair) for pair in pairs + list(more))


def connect():
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    tcp = socket.create_connection(("api.test", PORT))
    stream = context.wrap_socket(tcp, server_hostname="api.test")
    assert stream.selected_alpn_protocol() == "h2"
    stream.settimeout(10)
    return stream


def outcome(parts, enough):
    """The kinds of received frames until a sufficient one or the end: GOAWAY n, RST n, HEADERS, closed."""
    stream = connect()
    seen = []
    buffer = b""
    try:
        stream.sendall(PREFACE + frame(SETTINGS))
        for part in parts:
            stream.sendall(part)
        deadline = time.time() + 10
        while time.time() < deadline:
            piece = stream.recv(65536)
            if not piece:
                seen.append("closed")
                break
            buffer += piece
            while len(buffer) >= 9:
                length = int.from_bytes(buffer[:3], "big")
                if len(buffer) < 9 + length:
                    break
                kind, payload = buffer[3], buffer[9:9 + length]
                buffer = buffer[9 + length:]
                if kind == GOAWAY:
                    seen.append("GOAWAY %d" % int.from_bytes(payload[4:8], "big"))
                elif kind == RST:
                    seen.append("RST %d" % int.from_bytes(payload, "big"))
                elif kind == HEADERS:
                    seen.append("HEADERS")
            if any(s.startswith(e) for s in seen for e in enough):
                break
    except socket.timeout:
        seen.append("silence")
    except (ConnectionError, ssl.SSLError, BrokenPipeError):
        seen.append("reset")
    finally:
        stream.close()
    return seen


END, ENDH = 1, 4
GET = frame(HEADERS, END | ENDH, 1, request())


def rapid_reset(n):
    for i in range(n):
        yield frame(HEADERS, END | ENDH, 2 * i + 1, request()) + frame(RST, 0, 2 * i + 1, struct.pack("!I", 8))


def flood(part, times, first=b""):
    yield first
    for _ in range(times):
        yield part


BIG = literal(b"x-big", b"y" * 16000)
# Name, frames to send, and the sufficient outcomes.
CASES = [
    ("good", [GET], ["HEADERS"]),
    ("DATA on stream 0", [frame(DATA, 0, 0, b"x")], ["GOAWAY", "closed", "reset"]),
    ("HEADERS on stream 0", [frame(HEADERS, END | ENDH, 0, request())], ["GOAWAY", "closed", "reset"]),
    ("HEADERS on an even stream", [frame(HEADERS, END | ENDH, 2, request())], ["GOAWAY", "closed", "reset"]),
    ("DATA on an idle stream", [frame(DATA, END, 1, b"x")], ["GOAWAY", "closed", "reset"]),
    ("WINDOW_UPDATE on an idle stream", [frame(WINDOW, 0, 1, struct.pack("!I", 1))], ["GOAWAY", "closed", "reset"]),
    ("CONTINUATION of nothing", [frame(CONT, ENDH, 1, request())], ["GOAWAY", "closed", "reset"]),
    ("another frame within a header block", [frame(HEADERS, END, 1, request()), frame(PING, 0, 0, b"12345678")], ["GOAWAY", "closed", "reset"]),
    ("another stream within a header block", [frame(HEADERS, END, 1, request()), frame(CONT, ENDH, 3, b"")], ["GOAWAY", "closed", "reset"]),
    ("a stream number that goes back", [frame(HEADERS, END | ENDH, 5, request()), frame(HEADERS, END | ENDH, 3, request())], ["GOAWAY", "closed", "reset", "RST"]),
    ("SETTINGS with a payload of 5", [frame(SETTINGS, 0, 0, b"12345")], ["GOAWAY", "closed", "reset"]),
    ("SETTINGS on a stream", [frame(SETTINGS, 0, 1, b"")], ["GOAWAY", "closed", "reset"]),
    ("SETTINGS ack with payload", [frame(SETTINGS, 1, 0, b"123456")], ["GOAWAY", "closed", "reset"]),
    ("SETTINGS push 2", [frame(SETTINGS, 0, 0, struct.pack("!HI", 2, 2))], ["GOAWAY", "closed", "reset"]),
    ("SETTINGS window too large", [frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 2**31))], ["GOAWAY", "closed", "reset"]),
    ("SETTINGS frame size too small", [frame(SETTINGS, 0, 0, struct.pack("!HI", 5, 100))], ["GOAWAY", "closed", "reset"]),
    ("PING of 7", [frame(PING, 0, 0, b"1234567")], ["GOAWAY", "closed", "reset"]),
    ("PING on a stream", [frame(PING, 0, 1, b"12345678")], ["GOAWAY", "closed", "reset"]),
    ("RST on an idle stream", [frame(RST, 0, 1, struct.pack("!I", 8))], ["GOAWAY", "closed", "reset"]),
    ("RST of 3", [GET, frame(RST, 0, 1, b"123")], ["GOAWAY", "closed", "reset"]),
    ("WINDOW_UPDATE of 0", [frame(WINDOW, 0, 0, struct.pack("!I", 0))], ["GOAWAY", "closed", "reset"]),
    ("WINDOW_UPDATE overflow", [frame(WINDOW, 0, 0, struct.pack("!I", 2**31 - 1))] * 2, ["GOAWAY", "closed", "reset"]),
    ("PUSH_PROMISE from a client", [frame(PUSH, ENDH, 1, struct.pack("!I", 2) + request())], ["GOAWAY", "closed", "reset"]),
    ("a frame that is too large", [struct.pack("!I", 100000)[1:] + b"\0\0" + struct.pack("!I", 1)], ["GOAWAY", "closed", "reset"]),
    ("padding longer than the frame", [frame(HEADERS, ENDH | 8, 1, b"\xff" + request())], ["GOAWAY", "closed", "reset"]),
    ("a broken header block", [frame(HEADERS, END | ENDH, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff")], ["GOAWAY", "closed", "reset"]),
    ("an index that is not there", [frame(HEADERS, END | ENDH, 1, b"\xff\x7f")], ["GOAWAY", "closed", "reset"]),
    ("no :path", [frame(HEADERS, END | ENDH, 1, literal(b":method", b"GET") + literal(b":scheme", b"https"))], ["RST", "GOAWAY", "HEADERS"]),
    ("an upper-case name", [frame(HEADERS, END | ENDH, 1, request(b"/bad", more=[(b"X-Upper", b"1")]))], ["RST", "GOAWAY"]),
    ("a pseudo header last", [frame(HEADERS, END | ENDH, 1, request(b"/bad") + literal(b"a", b"b") + literal(b":path", b"/x"))], ["RST", "GOAWAY"]),
    ("an unknown pseudo header", [frame(HEADERS, END | ENDH, 1, request(b"/bad", more=[(b":unknown", b"1")]))], ["RST", "GOAWAY"]),
    ("Connection", [frame(HEADERS, END | ENDH, 1, request(b"/bad", more=[(b"connection", b"close")]))], ["RST", "GOAWAY"]),
    ("Transfer-Encoding", [frame(HEADERS, END | ENDH, 1, request(b"/bad", more=[(b"transfer-encoding", b"chunked")]))], ["RST", "GOAWAY"]),
    ("a length that lies", [frame(HEADERS, ENDH, 1, request(b"/bad", b"POST", [(b"content-length", b"3")])), frame(DATA, END, 1, b"hello")], ["RST", "GOAWAY"]),
    ("extended CONNECT", [frame(HEADERS, ENDH, 1, request(b"/bad", b"CONNECT", [(b":protocol", b"websocket")]))], ["RST", "GOAWAY", "HEADERS"]),
    ("a huge header list", flood(frame(CONT, 0, 1, BIG), 20, frame(HEADERS, END, 1, request(b"/bad"))), ["GOAWAY", "closed", "reset", "RST", "HEADERS"]),
    ("a flood of continuations", flood(frame(CONT, 0, 1, b""), 20000, frame(HEADERS, END, 1, request(b"/bad"))), ["GOAWAY", "closed", "reset"]),
    ("rapid reset", rapid_reset(5000), ["GOAWAY", "closed", "reset"]),
    ("a flood of pings", flood(frame(PING, 0, 0, b"12345678") * 100, 300, b""), None),
    ("a flood of settings", flood(frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 65535)) * 100, 300, b""), None),
    ("no preface", None, ["GOAWAY", "closed", "reset"]),
]


def attack():
    print("ready", flush=True)
    for name, parts, enough in CASES:
        if parts is None:
            stream = connect()
            stream.sendall(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
            try:
                got = ["closed"] if stream.recv(65536) is not None else []
            except (ConnectionError, ssl.SSLError):
                got = ["reset"]
        elif enough is None:
            # A flood may be tolerated as long as others are served and memory stays flat.
            stream = connect()
            stream.settimeout(1)
            try:
                stream.sendall(PREFACE + frame(SETTINGS))
                for part in parts:
                    stream.sendall(part)
            except (OSError, ssl.SSLError):
                pass
            got, enough = ["borne"], ["borne"]
        else:
            got = outcome(parts, enough)
        if not any(g.startswith(e) for g in got for e in enough):
            print(name, "ended in", got, flush=True)
        if "HEADERS" not in outcome([GET], ["HEADERS"]):
            print("after", name, "nobody is served", flush=True)
    print("cases", len(CASES), flush=True)


def trailers():
    import h2.config, h2.connection, h2.events
    stream = connect()
    h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    h2c.initiate_connection()
    h2c.send_headers(1, [(":method", "POST"), (":scheme", "https"), (":authority", f"api.test:{PORT}"),
                         (":path", "/trailers?value=0"), ("te", "trailers"), ("content-type", "application/grpc"),
                         ("authorization", "AS_SECRET_API_KEY")])
    h2c.send_data(1, b"\0\0\0\0\x02hi")
    h2c.send_headers(1, [("x-request-trailer", "yes")], end_stream=True)
    stream.sendall(h2c.data_to_send())
    while True:
        for event in h2c.receive_data(stream.recv(65536)):
            if isinstance(event, h2.events.TrailersReceived):
                print("trailers", sorted((n.decode(), v.decode()) for n, v in event.headers))
            if isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                print(type(event).__name__)
                return
        stream.sendall(h2c.data_to_send())


def reset():
    """Opens a stream without a response, waits for a line, resets it, and is served on the next."""
    import h2.config, h2.connection, h2.events
    stream = connect()
    h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    h2c.initiate_connection()
    pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", f"api.test:{PORT}")]
    h2c.send_headers(1, pseudo + [(":path", "/never")], end_stream=True)
    stream.sendall(h2c.data_to_send())
    print("ready", flush=True)
    sys.stdin.readline()
    h2c.reset_stream(1, 8)
    h2c.send_headers(3, pseudo + [(":path", "/echo")], end_stream=True)
    stream.sendall(h2c.data_to_send())
    while True:
        for event in h2c.receive_data(stream.recv(65536)):
            if isinstance(event, h2.events.StreamEnded):
                print("ended", event.stream_id)
                return
        stream.sendall(h2c.data_to_send())


{"attack": attack, "trailers": trailers, "reset": reset}[sys.argv[2]]()
