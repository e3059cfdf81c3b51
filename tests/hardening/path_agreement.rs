//! The authorized path is the path that servers act on: three real servers are compared, and a path that one
//! of them reads differently is not forwarded.

use std::path::Path;
use std::process::{Child, Stdio};

use super::*;
use crate::support::process::{command, free_address, run};

/// Paths that servers have been seen to read differently, and plain ones.
const PATHS: &[&str] = &[
    "/open/a",
    "/open/a/",
    "/open/a%20b",
    "/open/%61",
    "/open/%C3%A9",
    "/open/a+b",
    "/open/a~b",
    "/open/...",
    "/open/a:b@c",
    "/open/a!$&'()*,=b",
    "/open/%2d",
    "/open/.a",
    "/open/a..b",
    "/open/%41%42",
    "/open/a%3Fb",
    "/open/a%23b",
    "/open/a%26b",
    "/open/../shut",
    "/open/./a",
    "/open/%2e%2e/shut",
    "/open/%2E%2E/shut",
    "/open/.%2e/shut",
    "/open/..%2fshut",
    "/open/%2e%2e%2fshut",
    "/open/..%5cshut",
    "/open/..\\shut",
    "/open//shut",
    "//shut",
    "//open/a",
    "/open/a;/../shut",
    "/open/..;/shut",
    "/open/a;b",
    "/open/%3b",
    "/open/a%252fb",
    "/open/%252e%252e/shut",
    "/open/%",
    "/open/%zz",
    "/open/%4",
    "/open/a%00b",
    "/open/%0d%0ax",
    "/open/%c0%ae%c0%ae/shut",
    "/open/%c0%af",
    "/open/%ff",
    "/open/%u002e",
    "/open/a\tb",
    "/open/a#b",
    "/open/\u{e9}",
    "/OPEN/a",
    "/open",
    "/shut",
    "http://other.test/open/a",
    "*",
    "/open/%e2%80%a8",
    "/open/a%5cb",
];

/// Responds with the path as Node parses it, in hex.
const NODE_SERVER: &str = "require('http').createServer((q, s) => { const p = new URL('http://h' + q.url).pathname; \
    let d; try { d = decodeURIComponent(p) } catch { d = 'undecodable' } s.end(Buffer.from(d).toString('hex')) }) \
    .listen(+process.argv[1], '127.0.0.1')";
const PYTHON_SERVER: &str = "import http.server, sys, urllib.parse\n\
class H(http.server.BaseHTTPRequestHandler):\n\
\x20   protocol_version = 'HTTP/1.1'\n\
\x20   def do_GET(self):\n\
\x20       body = urllib.parse.unquote_to_bytes(urllib.parse.urlsplit(self.path).path).hex().encode()\n\
\x20       self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n\
\x20   def log_message(self, *a): pass\n\
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()";

/// The agent: sends each line of bytes as a request, and prints status and body.
const AGENT_CLIENT: &str = "import socket, sys\n\
name, port = sys.argv[1], int(sys.argv[2])\n\
for line in sys.stdin.read().split('\\n')[:-1]:\n\
\x20   s = socket.create_connection((name, port)); s.settimeout(20)\n\
\x20   s.sendall(b'GET ' + bytes.fromhex(line) + f' HTTP/1.1\\r\\nHost: {name}:{port}\\r\\nConnection: close\\r\\n\\r\\n'.encode())\n\
\x20   data = b''\n\
\x20   try:\n\
\x20       while chunk := s.recv(65536): data += chunk\n\
\x20   except OSError: pass\n\
\x20   head, _, body = data.partition(b'\\r\\n\\r\\n')\n\
\x20   print(head.split(b' ')[1].decode() if b' ' in head else '000', body.decode().strip().split()[-1] if body.strip() else '')";

/// A server; dropping it ends it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_server(mut program: std::process::Command, port: u16) -> Server {
    let mut server = Server(program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(server.0.try_wait().unwrap().is_none(), "the server ended");
        assert!(std::time::Instant::now() < deadline, "the server does not listen");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    server
}

/// nginx, which returns its `$uri`.
fn nginx(folder: &Path, port: u16) -> Server {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", folder.display()))
        .join(" ");
    let configuration = format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/errors;\n\
         events {{}}\nhttp {{ access_log off; {temporary}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 $uri; }} }} }}\n",
        folder.display()
    );
    std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
    let mut program = command("/usr/sbin/nginx");
    program
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-p")
        .arg(folder)
        .arg("-e")
        .arg(folder.join("errors"));
    start_server(program, port)
}

#[test]
fn forwarded_paths_are_read_alike_by_servers() {
    let folder = tempfile::tempdir().unwrap();
    let ports = [0; 3].map(|_| free_address().port());
    let _nginx = nginx(folder.path(), ports[0]);
    let mut node = command("/usr/bin/node");
    node.args(["-e", NODE_SERVER]).arg(ports[1].to_string());
    let _node = start_server(node, ports[1]);
    let mut python = command("/usr/bin/python3");
    python.args(["-c", PYTHON_SERVER]).arg(ports[2].to_string());
    let _python = start_server(python, ports[2]);

    let mut fixture = Fixture::new();
    let names = ["nginx.test", "node.test", "python.test"];
    for name in names {
        fixture.home.add_host(name, std::net::Ipv4Addr::LOCALHOST);
    }
    let rules =
        names.iter().zip(ports).map(|(name, port)| (*name, port, "methods: [GET]\npaths: [/open/**]"));
    fixture.rules(&rules.collect::<Vec<_>>());
    let corpus: String = PATHS.iter().map(|path| hex(path.as_bytes()) + "\n").collect();
    let mut passed = 0;
    for (name, port) in names.iter().zip(ports) {
        let mut agent =
            fixture.home.run_agent(["/usr/bin/python3", "-c", AGENT_CLIENT, name, &port.to_string()]);
        let output = crate::support::process::run_with_input(&mut agent, corpus.as_bytes()).ok();
        assert_eq!(output.lines().count(), PATHS.len(), "{output}");
        for (path, line) in PATHS.iter().zip(output.lines()) {
            let (code, body) = line.split_once(' ').unwrap();
            if code != "200" {
                assert!(matches!(code, "400" | "403" | "421"), "{name} {path}: {line}");
                continue;
            }
            passed += 1;
            let judged: Vec<u8> = {
                // A fragment is not part of a request and is not forwarded.
                let sent = path.split('#').next().unwrap();
                percent_encoding::percent_decode_str(sent).collect()
            };
            assert!(judged.starts_with(b"/open/"), "{name}: {path} left");
            let read = if *name == "nginx.test" { body.as_bytes().to_vec() } else { unhex(body) };
            // nginx's response ends at the first blank; the agent prints one word.
            let judged = if *name == "nginx.test" {
                judged.rsplit(|byte| *byte == b' ').next().unwrap().to_vec()
            } else {
                judged
            };
            assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(&judged), "{name}: {path}");
        }
    }
    assert!(passed >= 3 * 10, "plain paths are no victims: {passed}");
    // Control: asked directly, the servers disagree.
    let direct = |port: u16| {
        run(command("/usr/bin/curl")
            .args(["-sS", "--path-as-is"])
            .arg(format!("http://127.0.0.1:{port}/open/../shut")))
        .ok()
    };
    assert_eq!(direct(ports[0]), "/shut");
    assert_eq!(unhex(&direct(ports[2])), b"/open/../shut");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|digit| char::from(digit).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}
