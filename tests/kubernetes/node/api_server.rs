//! An API server for watchers of pods: paged lists, watches with JSON lines from a given version, bookmarks,
//! `410 Gone`, and connections that break.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running server. Its threads end with the test.
pub(super) struct ApiServer {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Pods by uid.
    pods: BTreeMap<String, Value>,
    /// The remembered events.
    history: Vec<(u64, &'static str, Value)>,
    /// Watches from before this version get `410 Gone`.
    remembered: u64,
    connections: HashMap<u64, TcpStream>,
    opened: u64,
    pub(super) lists: usize,
    watches: usize,
    watching: usize,
    sent: usize,
    is_down: bool,
}

/// Counters of the requests so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestLog {
    pub(super) lists: usize,
    pub(super) watches: usize,
    /// Open watches.
    pub(super) watching: usize,
    /// Bytes sent.
    pub(super) sent: usize,
}

impl ApiServer {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        shared.state.lock().unwrap().version = 100;
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, served) = (stream.unwrap(), served.clone());
                std::thread::spawn(move || served.serve(stream));
            }
        });
        Self { port, shared }
    }

    /// The kubeconfig for clients.
    pub(super) fn kubeconfig(&self) -> String {
        let server = format!("http://127.0.0.1:{}", self.port);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": server } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        })
        .to_string()
    }

    /// Creates or replaces the pod.
    pub(super) fn put_pod(&self, mut pod: Value) {
        let mut state = self.state();
        state.version += 1;
        pod["metadata"]["resourceVersion"] = state.version.to_string().into();
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let was = state.pods.insert(uid, pod.clone());
        let version = state.version;
        state.history.push((version, if was.is_some() { "MODIFIED" } else { "ADDED" }, pod));
        self.shared.changed.notify_all();
    }

    pub(super) fn delete_pod(&self, uid: &str) {
        let mut state = self.state();
        state.version += 1;
        let Some(mut pod) = state.pods.remove(uid) else { return };
        pod["metadata"]["resourceVersion"] = state.version.to_string().into();
        let version = state.version;
        state.history.push((version, "DELETED", pod));
        self.shared.changed.notify_all();
    }

    /// Sends a bookmark event to watches.
    pub(super) fn send_bookmark(&self) {
        let mut state = self.state();
        state.version += 1;
        let (version, text) = (state.version, state.version.to_string());
        let object = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "resourceVersion": text } });
        state.history.push((version, "BOOKMARK", object));
        self.shared.changed.notify_all();
    }

    /// Forgets events, as a real server does after some minutes.
    pub(super) fn forget_history(&self) {
        let mut state = self.state();
        state.history.clear();
        // Other objects have changed the resource version.
        state.version += 1000;
        state.remembered = state.version;
    }

    pub(super) fn break_connections(&self) {
        for (_, connection) in self.state().connections.drain() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    /// While down, every request is refused.
    pub(super) fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
        if is_down {
            self.break_connections();
        }
    }

    pub(super) fn asked(&self) -> RequestLog {
        let State { lists, watches, watching, sent, .. } = &*self.state();
        RequestLog { lists: *lists, watches: *watches, watching: *watching, sent: *sent }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let number = {
            let mut state = self.state.lock().unwrap();
            state.opened += 1;
            let number = state.opened;
            state.connections.insert(number, stream.try_clone().unwrap());
            number
        };
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(target) = read_target(&mut reader) {
            if self.respond(&stream, &target).is_err() {
                break;
            }
        }
        self.state.lock().unwrap().connections.remove(&number);
    }

    fn respond(&self, stream: &TcpStream, target: &str) -> std::io::Result<()> {
        let url = url::Url::parse(&format!("http://api{target}")).unwrap();
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let asked = |name: &str| query.get(name).map(String::as_str);
        if self.state.lock().unwrap().is_down {
            return self.write_response(stream, 503, &status(503, "ServiceUnavailable"));
        }
        if url.path() != "/api/v1/pods" {
            return self.write_response(stream, 404, &status(404, "NotFound"));
        }
        let node = asked("fieldSelector").and_then(|selector| selector.strip_prefix("spec.nodeName="));
        // A list without a node selector asks for too much.
        let Some(node) = node else { return self.write_response(stream, 403, &status(403, "Forbidden")) };
        if asked("watch") == Some("true") || asked("watch") == Some("1") {
            let from = asked("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
            let seconds = asked("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(300);
            let bookmarks = asked("allowWatchBookmarks") == Some("true");
            self.watch(stream, node, from, Duration::from_secs(seconds), bookmarks)
        } else {
            let limit = asked("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
            let after = asked("continue").unwrap_or_default();
            let list = self.list(node, limit, after);
            self.write_response(stream, 200, &list)
        }
    }

    fn list(&self, node: &str, limit: usize, after: &str) -> Value {
        let mut state = self.state.lock().unwrap();
        state.lists += 1;
        let here = state.pods.iter().filter(|(_, pod)| pod["spec"]["nodeName"] == node);
        let mut left = here.filter(|(uid, _)| uid.as_str() > after);
        let items: Vec<_> = left.by_ref().take(limit).collect();
        let more = left.count();
        let next = items.last().filter(|_| more > 0).map_or("", |(uid, _)| uid);
        let mut metadata = json!({ "resourceVersion": state.version.to_string() });
        if more > 0 {
            metadata["continue"] = next.into();
            metadata["remainingItemCount"] = more.into();
        }
        let items: Vec<_> = items.into_iter().map(|(_, pod)| pod.clone()).collect();
        json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items })
    }

    fn watch(
        &self,
        mut stream: &TcpStream,
        node: &str,
        from: u64,
        longest: Duration,
        bookmarks: bool,
    ) -> std::io::Result<()> {
        let end = Instant::now() + longest;
        {
            let mut state = self.state.lock().unwrap();
            state.watches += 1;
            state.watching += 1;
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        let mut next = from;
        let events = loop {
            let mut state = self.state.lock().unwrap();
            let mut lines = Vec::new();
            if next < state.remembered {
                let error = json!({ "type": "ERROR", "object": status(410, "Expired") });
                state.watching -= 1;
                drop(state);
                write_chunk(stream, &error)?;
                break Ok(());
            }
            let since = next;
            for (version, kind, object) in state.history.iter().filter(|(version, ..)| *version > since) {
                let events = if *kind == "BOOKMARK" { bookmarks } else { object["spec"]["nodeName"] == node };
                if events {
                    lines.push(json!({ "type": kind, "object": object }));
                }
                next = *version;
            }
            state.sent += lines.iter().map(|line| line.to_string().len()).sum::<usize>();
            if lines.is_empty() {
                let left = end.saturating_duration_since(Instant::now());
                let poll = left.min(Duration::from_millis(200));
                let (mut state, _) = self.changed.wait_timeout(state, poll).unwrap();
                if left.is_zero() || is_closed(stream) {
                    state.watching -= 1;
                    break Ok(());
                }
                continue;
            }
            drop(state);
            if let Err(error) = lines.iter().try_for_each(|line| write_chunk(stream, line)) {
                self.state.lock().unwrap().watching -= 1;
                break Err(error);
            }
        };
        events.and_then(|()| stream.write_all(b"0\r\n\r\n"))
    }

    fn write_response(&self, mut stream: &TcpStream, code: u16, body: &Value) -> std::io::Result<()> {
        let body = body.to_string();
        self.state.lock().unwrap().sent += body.len();
        write!(
            stream,
            "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// The target of the next request; none at the end.
fn read_target(reader: &mut impl BufRead) -> Option<String> {
    let mut target = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            return target;
        }
        target = target.or_else(|| line.split(' ').nth(1).map(str::to_owned));
    }
}

fn write_chunk(mut stream: &TcpStream, line: &Value) -> std::io::Result<()> {
    let line = format!("{line}\n");
    write!(stream, "{:x}\r\n{line}\r\n", line.len())
}

/// Whether the peer has closed the connection.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    match peeked {
        Ok(length) => length == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": reason })
}
