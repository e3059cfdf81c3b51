//! HTTP/2 servers that violate the protocol or disconnect.

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Frames of a truncated body; they fit into our flow-control window.
const MAX_FRAMES: usize = 30;
/// `:status: 200` in HPACK's static table.
const OK: u8 = 0x88;

/// The server's end of a connection with an open request stream.
struct Stream {
    peer: Peer,
    id: u32,
}

impl Stream {
    /// Sends SETTINGS and waits for the first request.
    fn accept(mut peer: Peer) -> Option<Self> {
        peer.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len())?;
        let mut stream = Self { peer, id: 0 };
        stream.send_frame_on(0, SETTINGS, 0, &[]);
        loop {
            let head = stream.peer.read(9)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let payload = stream.peer.read(usize::try_from(length).unwrap())?;
            match head[3] {
                SETTINGS if head[4] == 0 => stream.send_frame_on(0, SETTINGS, 1, &[]),
                HEADERS => {
                    stream.id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    // `:method: GET` and `:method: POST` in the static table.
                    let method = payload.iter().find(|byte| matches!(byte, 0x82 | 0x83));
                    stream.peer.record(if method == Some(&0x83) { "POST" } else { "GET" });
                    return Some(stream);
                }
                _ => {}
            }
        }
    }

    fn send_frame(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        self.send_frame_on(self.id, kind, flags, payload);
    }

    fn send_frame_on(&mut self, stream: u32, kind: u8, flags: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.peer.send([&head, payload].concat());
    }

    /// A valid head and the beginning of a body.
    fn send_headers_and_data(&mut self) {
        self.send_frame(HEADERS, END_HEADERS, &[OK]);
        // Enough that some of it is forwarded.
        for _ in 0..MAX_FRAMES {
            self.send_frame(DATA, 0, &[b'x'; 10_000]);
        }
    }

    /// A valid head with a content-length of two digits.
    fn send_headers_with_length(&mut self, length: &[u8; 2]) {
        self.send_frame(HEADERS, END_HEADERS, &[&[OK, 0x0f, 0x0d, 2], &length[..]].concat());
    }

    fn send_goaway(&mut self, last: u32) {
        self.send_frame_on(0, GOAWAY, 0, &[last.to_be_bytes(), [0; 4]].concat());
    }
}

type Fault = fn(Stream);

/// Faults before a response has begun.
const BEFORE_HEADERS: &[(&str, Fault)] = &[
    ("refuses the stream", |mut stream| {
        stream.send_frame(RST_STREAM, 0, &[0, 0, 0, 7]);
        stream.peer.hang();
    }),
    ("resets the stream", |mut stream| {
        stream.send_frame(RST_STREAM, 0, &[0, 0, 0, 2]);
        stream.peer.hang();
    }),
    ("goes away", |mut stream| {
        stream.send_goaway(0);
        stream.peer.close();
    }),
    ("sends no valid head", |mut stream| {
        stream.send_frame(HEADERS, END_HEADERS, &[0xff; 20]);
        stream.peer.hang();
    }),
    ("sends no HTTP/2", |mut stream| {
        stream.peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        stream.peer.hang();
    }),
    ("sends a huge head", |mut stream| {
        // `x: fff…` repeated.
        let line = [&[0, 1, b'x', 0x7f, 0xa9, 0x3e], &[b'f'; 8104][..]].concat();
        stream.send_frame(HEADERS, 0, &[OK]);
        for _ in 0..100 {
            stream.send_frame(CONTINUATION, 0, &line);
        }
        stream.send_frame(CONTINUATION, END_HEADERS, &[]);
        stream.peer.hang();
    }),
    ("closes", |stream| stream.peer.close()),
    ("resets the connection", |stream| stream.peer.reset()),
];

/// Faults after a response has begun.
const AFTER_HEADERS: &[(&str, Fault)] = &[
    ("resets the stream", |mut stream| {
        stream.send_headers_and_data();
        stream.send_frame(RST_STREAM, 0, &[0, 0, 0, 2]);
        stream.peer.hang();
    }),
    ("resets the stream without an error", |mut stream| {
        stream.send_headers_and_data();
        stream.send_frame(RST_STREAM, 0, &[0, 0, 0, 0]);
        stream.peer.hang();
    }),
    ("goes away and closes", |mut stream| {
        stream.send_headers_and_data();
        let id = stream.id;
        stream.send_goaway(id);
        stream.peer.close();
    }),
    ("closes", |mut stream| {
        stream.send_headers_and_data();
        stream.peer.close();
    }),
    ("resets the connection", |mut stream| {
        stream.send_headers_and_data();
        stream.peer.reset();
    }),
    ("sends less than it promised", |mut stream| {
        stream.send_headers_with_length(b"50");
        stream.send_frame(DATA, END_STREAM, b"hello");
        stream.peer.hang();
    }),
    ("sends more than it promised", |mut stream| {
        stream.send_headers_with_length(b"10");
        stream.send_frame(DATA, END_STREAM, b"hello, hello");
        stream.peer.hang();
    }),
    ("sends garbage", |mut stream| {
        stream.send_headers_and_data();
        stream.peer.send([0xff; 64]);
        stream.peer.hang();
    }),
];

/// A server for each fault, and curl's result for each: status code, exit code, rejection.
fn curl_each(faults: &[(&str, Fault)], arguments: &str) -> (Fixture, Vec<FaultyServer>, Vec<[String; 3]>) {
    let mut fixture = Fixture::new();
    fixture.home.add_host("faulty.test", [127, 0, 0, 1]);
    let start = |fault: Fault| {
        FaultyServer::https(&fixture.authority, "faulty.test", "h2", move |peer| {
            if let Some(stream) = Stream::accept(peer) {
                fault(stream);
            }
        })
    };
    let servers: Vec<FaultyServer> = faults.iter().map(|(_, fault)| start(*fault)).collect();
    let rules: Vec<_> =
        servers.iter().map(|server| ("faulty.test", server.port(), "secrets: [API_KEY]")).collect();
    fixture.rules(&rules);
    let ports: Vec<String> = servers.iter().map(|server| server.port().to_string()).collect();
    let script = format!(
        "for port in {}; do curl -s -o /dev/null -m 50 {arguments} \
         -w '%{{http_code}} %{{exitcode}} %header{{x-as-refused}}\\n' \
         -H \"Authorization: Bearer $API_KEY\" https://faulty.test:$port/; done; true",
        ports.join(" ")
    );
    let output = run(&mut fixture.home.run_agent(["sh", "-c", &script])).ok();
    let words = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        std::array::from_fn(|_| words.next().unwrap_or_default())
    };
    let output: Vec<[String; 3]> = output.lines().map(words).collect();
    assert_eq!(output.len(), faults.len());
    (fixture, servers, output)
}

#[test]
fn failure_before_response_is_502_and_post_is_not_retried() {
    for version in ["--http1.1", "--http2"] {
        let (fixture, servers, output) = curl_each(BEFORE_HEADERS, &format!("{version} -d body"));
        for (((what, _), output), server) in BEFORE_HEADERS.iter().zip(output).zip(&servers) {
            let expected = ["502", "0", "upstream_unavailable"].map(str::to_owned);
            assert_eq!(output, expected, "{version}: a server that {what}");
            assert_eq!(server.requests(), ["POST"], "a server that {what}");
        }
        for record in fixture.home.audit() {
            assert_eq!((&record["status"], &record["status_code"]), (&"ERROR".into(), &502.into()));
        }
    }
}

#[test]
fn truncated_body_is_never_complete() {
    for version in ["--http1.1", "--http2", "--no-alpn --http1.0"] {
        let (fixture, _servers, output) = curl_each(AFTER_HEADERS, version);
        for ((what, _), [code, exit, error]) in AFTER_HEADERS.iter().zip(output) {
            // A short response is buffered before it is forwarded.
            let is_told = code == "502" && error == "upstream_unavailable";
            assert!(is_told || exit != "0", "{version}: a server that {what}: {code} {exit} {error}");
        }
        for record in fixture.home.audit() {
            assert_eq!(record["status"], "ERROR", "{record}");
        }
    }
}
