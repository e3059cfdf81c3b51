//! ClientHellos: fragmented, resumed, encrypted or malformed.

use super::*;

/// A Python TLS client whose ClientHello passes through `cut` and is sent in writes of one byte. It sends one
/// request and prints the status line of the response, or the error.
const FRAGMENTED_CLIENT: &str = r#"
import socket, ssl, struct, sys
port, kind = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context()
if kind == 'alpn': context.set_alpn_protocols(['imap'])
inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(inside, outside, server_hostname='api.test')
sock = socket.create_connection(('api.test', port))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

def hidden(hello):
    # The same hello with an encrypted one in it, which is the last extension here.
    record, message = hello[:5], bytearray(hello[5:])
    at = 4 + 34
    at += 1 + message[at]
    at += 2 + struct.unpack_from('>H', message, at)[0]
    at += 1 + message[at]
    inner = bytes(1) + struct.pack('>HHBH', 1, 1, 7, 32) + bytes(32) + struct.pack('>H', 128) + bytes(128)
    extra = struct.pack('>HH', 0xfe0d, len(inner)) + inner
    struct.pack_into('>H', message, at, struct.unpack_from('>H', message, at)[0] + len(extra))
    message += extra
    message[1:4] = (len(message) - 4).to_bytes(3, 'big')
    return record[:3] + struct.pack('>H', len(message)) + bytes(message)

def cut(hello):
    if kind == 'records':
        return b''.join(b'\x16\x03\x01\x00\x01' + bytes([byte]) for byte in hello[5:])
    return hidden(hello) if kind == 'hidden' else hello

def flush(change=bytes):
    for byte in change(outside.read()): sock.send(bytes([byte]))

def receive():
    data = sock.recv(65536)
    inside.write(data) if data else inside.write_eof()

def until(step):
    while True:
        try: return step()
        except ssl.SSLWantReadError: flush(); receive()

first = True
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    flush(cut)
    receive()
try:
    until(tls.do_handshake)
    tls.write(b'GET /echo HTTP/1.1\r\nHost: api.test:%d\r\nAuthorization: AS_SECRET_API_KEY\r\n\r\n' % port)
    flush()
    print(until(lambda: tls.read(20)).decode())
except (ssl.SSLError, ConnectionError) as error:
    print('failed:', error)
"#;

#[test]
fn fragmented_client_hello_is_read() {
    let fixture = Fixture::new();
    for kind in ["bytes", "records"] {
        let port = fixture.api.port().to_string();
        let answer = python(&fixture, FRAGMENTED_CLIENT, &[&port, kind]).ok();
        // Split into other records, the hello is the same message, so that the handshake succeeds.
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{kind}: {answer}");
    }
    assert!(fixture.api.received().iter().all(|received| received.header("authorization") == SECRET));
    assert_eq!(fixture.api.received().len(), 2);
}

#[test]
fn unknown_alpn_is_refused_and_recorded() {
    let fixture = Fixture::new();
    let answer = python(&fixture, FRAGMENTED_CLIENT, &[&fixture.api.port().to_string(), "alpn"]).ok();
    assert!(answer.starts_with("failed: ") && answer.contains("no application protocol"), "{answer}");
    let record = &fixture.home.audit()[0];
    assert_eq!((&record["method"], &record["status"]), (&"CONNECT".into(), &"BLOCKED".into()));
}

#[test]
fn untrusting_client_is_recorded_with_alert() {
    let fixture = Fixture::new();
    let roots = fixture.home.roots();
    let outcome = fixture.curl(&["--cacert", roots.to_str().unwrap()], "/");
    assert_eq!(outcome.code, Some(60), "{outcome:?}");
    let record = &fixture.home.audit()[0];
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("UnknownCA"), "{record}");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn malformed_tls_ends_only_its_connection() {
    let fixture = Fixture::new();
    let program = r#"
import os, socket, sys
for data in [b'\x16', b'\x16\x03\x01\x00\x04\x01\xff\xff\xff', b'\x16' + os.urandom(70000),
             (b'\x16\x03\x01\x40\x00\x01\x00\xff\x00' + bytes(16380)) * 40]:
    s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
    try:
        s.sendall(data); s.shutdown(socket.SHUT_WR)
        while s.recv(4096): pass
    except OSError: pass
print('ended')"#;
    assert_eq!(python(&fixture, program, &[&fixture.api.port().to_string()]).ok().trim(), "ended");
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), 4, "{audit:#?}");
    assert!(audit.iter().all(|record| record["status"] == "BLOCKED"));
}

#[test]
fn resumption_is_bound_to_name() {
    let mut fixture = Fixture::new();
    fixture.home.add_host("b.test", [127, 0, 0, 1]);
    let program = r#"
import socket, ssl, sys
context, port, session = ssl.create_default_context(), int(sys.argv[1]), None
for name in ['api.test', 'api.test', 'b.test']:
    sock = socket.create_connection((name, port))
    tls = context.wrap_socket(sock, server_hostname=name, session=session)
    tls.sendall(b'GET / HTTP/1.1\r\nHost: %s:%d\r\n\r\n' % (name.encode(), port))
    tls.recv(1000)
    print(name, tls.version(), tls.session_reused)
    session = session or tls.session"#;
    let out = python(&fixture, program, &[&fixture.api.port().to_string()]).ok();
    let lines = ["api.test TLSv1.3 False", "api.test TLSv1.3 True", "b.test TLSv1.3 False"];
    assert_eq!(out.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn encrypted_client_hello_is_not_forwarded() {
    let fixture = Fixture::new();
    let port = fixture.api.port().to_string();
    let hidden = || python(&fixture, FRAGMENTED_CLIENT, &[&port, "hidden"]).ok();
    // We have no key for the inner hello: as any such server, we answer the outer one. The client whose hello
    // was changed notices it, which shows that all of it was read.
    assert!(hidden().contains("failed: "), "{}", hidden());
    fixture.rule("tls: passthrough");
    let answer = hidden();
    assert!(answer.contains("access denied"), "{answer}");
    let record = fixture.home.audit().pop().unwrap();
    assert_eq!((&record["method"], &record["status"]), (&"CONNECT".into(), &"BLOCKED".into()));
    assert!(record["reason"].as_str().unwrap().contains("encrypted ClientHello"), "{record}");
    assert_eq!(fixture.api.connections(), 0);
}
