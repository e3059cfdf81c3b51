//! Servers of HTTP/2 that break the protocol or break off.

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// How many frames come of a body that breaks off; they fit into the window that we open.
const LATE: usize = 30;
/// `:status: 200`, by its place in HPACK's static table.
const OK: u8 = 0x88;

/// The server's end of a connection on which a request came, and the stream it came on.
struct Stream {
    peer: Peer,
    id: u32,
}

impl Stream {
    /// Greets, and waits for the first request.
    fn accept(mut peer: Peer) -> Option<Self> {
        peer.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len())?;
        let mut stream = Self { peer, id: 0 };
        stream.frame_on(0, SETTINGS, 0, &[]);
        loop {
            let head = stream.peer.read(9)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let payload = stream.peer.read(usize::try_from(length).unwrap())?;
            match head[3] {
                SETTINGS if head[4] == 0 => stream.frame_on(0, SETTINGS, 1, &[]),
                HEADERS => {
                    stream.id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    // The places of `:method: GET` and `:method: POST` in the static table.
                    let method = payload.iter().find(|byte| matches!(byte, 0x82 | 0x83));
                    stream.peer.note(if method == Some(&0x83) { "POST" } else { "GET" });
                    return Some(stream);
                }
                _ => {}
            }
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        self.frame_on(self.id, kind, flags, payload);
    }

    fn frame_on(&mut self, stream: u32, kind: u8, flags: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.peer.send([&head, payload].concat());
    }

    /// A good head, and the beginning of a body.
    fn begin(&mut self) {
        self.frame(HEADERS, END_HEADERS, &[OK]);
        // Enough that some of it is passed on.
        for _ in 0..LATE {
            self.frame(DATA, 0, &[b'x'; 10_000]);
        }
    }

    /// A good head that promises `length` (two digits).
    fn promise(&mut self, length: &[u8; 2]) {
        self.frame(HEADERS, END_HEADERS, &[&[OK, 0x0f, 0x0d, 2], &length[..]].concat());
    }

    fn go_away(&mut self, last: u32) {
        self.frame_on(0, GOAWAY, 0, &[last.to_be_bytes(), [0; 4]].concat());
    }
}

/// What a server does wrong with each request.
type Fault = fn(Stream);

/// What fails before an answer has begun.
const BEFORE: &[(&str, Fault)] = &[
    ("refuses the stream", |mut stream| {
        stream.frame(RST_STREAM, 0, &[0, 0, 0, 7]);
        stream.peer.hang();
    }),
    ("resets the stream", |mut stream| {
        stream.frame(RST_STREAM, 0, &[0, 0, 0, 2]);
        stream.peer.hang();
    }),
    ("goes away", |mut stream| {
        stream.go_away(0);
        stream.peer.close();
    }),
    ("sends no valid head", |mut stream| {
        stream.frame(HEADERS, END_HEADERS, &[0xff; 20]);
        stream.peer.hang();
    }),
    ("sends no HTTP/2", |mut stream| {
        stream.peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        stream.peer.hang();
    }),
    ("sends a huge head", |mut stream| {
        // `x: fff…`, again and again.
        let line = [&[0, 1, b'x', 0x7f, 0xa9, 0x3e], &[b'f'; 8104][..]].concat();
        stream.frame(HEADERS, 0, &[OK]);
        for _ in 0..100 {
            stream.frame(CONTINUATION, 0, &line);
        }
        stream.frame(CONTINUATION, END_HEADERS, &[]);
        stream.peer.hang();
    }),
    ("closes", |stream| stream.peer.close()),
    ("resets the connection", |stream| stream.peer.reset()),
];

/// What fails once it has.
const AMID: &[(&str, Fault)] = &[
    ("resets the stream", |mut stream| {
        stream.begin();
        stream.frame(RST_STREAM, 0, &[0, 0, 0, 2]);
        stream.peer.hang();
    }),
    ("resets the stream without an error", |mut stream| {
        stream.begin();
        stream.frame(RST_STREAM, 0, &[0, 0, 0, 0]);
        stream.peer.hang();
    }),
    ("goes away and closes", |mut stream| {
        stream.begin();
        let id = stream.id;
        stream.go_away(id);
        stream.peer.close();
    }),
    ("closes", |mut stream| {
        stream.begin();
        stream.peer.close();
    }),
    ("resets the connection", |mut stream| {
        stream.begin();
        stream.peer.reset();
    }),
    ("sends less than it promised", |mut stream| {
        stream.promise(b"50");
        stream.frame(DATA, END_STREAM, b"hello");
        stream.peer.hang();
    }),
    ("sends more than it promised", |mut stream| {
        stream.promise(b"10");
        stream.frame(DATA, END_STREAM, b"hello, hello");
        stream.peer.hang();
    }),
    ("sends garbage", |mut stream| {
        stream.begin();
        stream.peer.send([0xff; 64]);
        stream.peer.hang();
    }),
];

/// A server for each fault, and what curl says of each: status code, exit code, refusal.
fn curled(faults: &[(&str, Fault)], arguments: &str) -> (World, Vec<Faulty>, Vec<[String; 3]>) {
    let mut world = World::new();
    world.home.host("faulty.test", [127, 0, 0, 1]);
    let start = |fault: Fault| {
        Faulty::https(&world.authority, "faulty.test", "h2", move |peer| {
            if let Some(stream) = Stream::accept(peer) {
                fault(stream);
            }
        })
    };
    let servers: Vec<Faulty> = faults.iter().map(|(_, fault)| start(*fault)).collect();
    let rules: Vec<_> =
        servers.iter().map(|server| ("faulty.test", server.port(), "secrets: [API_KEY]")).collect();
    world.rules(&rules);
    let ports: Vec<String> = servers.iter().map(|server| server.port().to_string()).collect();
    let script = format!(
        "for port in {}; do curl -s -o /dev/null -m 50 {arguments} \
         -w '%{{http_code}} %{{exitcode}} %header{{x-as-refused}}\\n' \
         -H \"Authorization: Bearer $API_KEY\" https://faulty.test:$port/; done; true",
        ports.join(" ")
    );
    let said = finish(&mut world.home.run_agent(["sh", "-c", &script])).ok();
    let words = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        std::array::from_fn(|_| words.next().unwrap_or_default())
    };
    let said: Vec<[String; 3]> = said.lines().map(words).collect();
    assert_eq!(said.len(), faults.len());
    (world, servers, said)
}

#[test]
fn a_server_that_fails_before_its_answer_is_a_502_and_a_post_is_sent_once() {
    for version in ["--http1.1", "--http2"] {
        let (world, servers, said) = curled(BEFORE, &format!("{version} -d body"));
        for (((what, _), said), server) in BEFORE.iter().zip(said).zip(&servers) {
            let expected = ["502", "0", "upstream_unavailable"].map(str::to_owned);
            assert_eq!(said, expected, "{version}: a server that {what}");
            assert_eq!(server.requests(), ["POST"], "a server that {what}");
        }
        for record in world.home.audit() {
            assert_eq!((&record["status"], &record["status_code"]), (&"ERROR".into(), &502.into()));
        }
    }
}

#[test]
fn a_body_that_breaks_off_is_never_whole() {
    for version in ["--http1.1", "--http2", "--no-alpn --http1.0"] {
        let (world, _servers, said) = curled(AMID, version);
        for ((what, _), [code, exit, slug]) in AMID.iter().zip(said) {
            // A short answer is gathered before any of it is passed on.
            let is_told = code == "502" && slug == "upstream_unavailable";
            assert!(is_told || exit != "0", "{version}: a server that {what}: {code} {exit} {slug}");
        }
        for record in world.home.audit() {
            assert_eq!(record["status"], "ERROR", "{record}");
        }
    }
}
