//! The engine that runs the containers behind a service, asked for what a cgroup's path does not tell: which image
//! a container was made from. Whoever may talk to an engine's socket can become root through it, so that the
//! process which reads hostile bytes has no way there: a helper has it, which puts one question, the same
//! for every container, and passes on nothing but the image. What is not known holds for no policy.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anstream::eprintln;
use moka::sync::Cache;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::container;
use super::image::{Image, Name, is_digest};
use crate::privsep::helper::{RequestChannel, Response, invalid_response as unclear};
use crate::types::sync::MutexExt;

/// Time limit for all requests about one container.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Time without requests after a failure: every agent's connection would wait for the engine otherwise.
const FAILURE_BACKOFF: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const MAX_RESPONSE_SIZE: u64 = 4 << 20;
const MAX_DIGESTS: usize = 32;
const MAX_CACHED: u64 = 4096;

/// An engine, by the process that asks it.
pub struct Engine {
    asker: Mutex<EngineClient>,
    /// A container is of one image all its life, and its id is never given again.
    known: Cache<Box<str>, Arc<Image>>,
}

struct EngineClient {
    line: RequestChannel,
    rests_until: Option<Instant>,
}

impl Engine {
    /// Forks the process that asks the engine behind `socket`, which gives up by `confine` what it does not need.
    /// The calling process must have one thread.
    pub fn start(socket: PathBuf, confine: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        // It answers late rather than not at all.
        let timeout = REQUEST_TIMEOUT + Duration::from_secs(1);
        Ok(Self::by(RequestChannel::fork(timeout, confine, move |question| answer(&socket, question))?))
    }

    fn by(line: RequestChannel) -> Self {
        Self { asker: Mutex::new(EngineClient { line, rests_until: None }), known: Cache::new(MAX_CACHED) }
    }

    /// The image of the container with this id; none if the engine knows no such container. Blocks.
    ///
    /// # Errors
    /// When it does not say so in time.
    pub fn image(&self, id: &str) -> io::Result<Option<Arc<Image>>> {
        if let Some(image) = self.known.get(id) {
            return Ok(Some(image));
        }
        let mut asker = self.asker.lock_ignoring_poison();
        // Another connection of the same container may have asked meanwhile.
        if let Some(image) = self.known.get(id) {
            return Ok(Some(image));
        }
        if asker.rests_until.is_some_and(|end| Instant::now() < end) {
            return Err(io::Error::other("the engine failed a moment ago"));
        }
        match asker.line.request(id.as_bytes()).and_then(|message| parse_response(&message.body)) {
            Ok(Some(image)) => {
                let image = Arc::new(image);
                self.known.insert(id.into(), image.clone());
                Ok(Some(image))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                eprintln!(
                    "agentsecrets: the engine does not say which image container {id} is of, so that it is \
                     refused: {error}"
                );
                asker.rests_until = Some(Instant::now() + FAILURE_BACKOFF);
                Err(error)
            }
        }
    }
}

/// Parses a response of the helper.
fn parse_response(answer: &[u8]) -> io::Result<Option<Image>> {
    match answer.split_first() {
        Some((b'+', image)) => Ok(Some(serde_json::from_slice(image)?)),
        Some((b'-', _)) => Ok(None),
        Some((b'!', reason)) => Err(io::Error::other(String::from_utf8_lossy(reason).into_owned())),
        _ => Err(unclear()),
    }
}

/// The helper's answer to a question, which is a container's id.
fn answer(engine: &Path, question: &[u8]) -> Response {
    let id = std::str::from_utf8(question).ok().filter(|id| container::is_whole_id(id));
    let found = id.ok_or_else(unclear).and_then(|id| image(engine, id));
    let answer = match found.map(|image| image.map(|image| serde_json::to_vec(&image)).transpose()) {
        Ok(Ok(Some(image))) => [b"+", &*image].concat(),
        Ok(Ok(None)) => b"-".to_vec(),
        Ok(Err(error)) => format!("!{error}").into_bytes(),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            format!("!it does not answer within {} s", REQUEST_TIMEOUT.as_secs()).into_bytes()
        }
        Err(error) => format!("!{error}").into_bytes(),
    };
    (answer, None)
}

/// The facts about a container that are read from the API of Docker and Podman. The rest of the response,
/// such as the environment, is dropped.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    /// The image's own digest.
    image: String,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    /// The image that the container was created from.
    image: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedImage {
    repo_digests: Option<Vec<String>>,
}

/// The image of the container `id`; none where the engine knows no such container.
fn image(engine: &Path, id: &str) -> io::Result<Option<Image>> {
    let end = Instant::now() + REQUEST_TIMEOUT;
    let Some(inspected) = get::<Inspected>(engine, &format!("/containers/{id}/json"), end)? else {
        return Ok(None);
    };
    if inspected.id != id {
        return Err(io::Error::other("the engine speaks of another container"));
    }
    let own = match inspected.image.strip_prefix("sha256:") {
        Some(_) => inspected.image,
        None => format!("sha256:{}", inspected.image),
    };
    if !is_digest(&own) {
        return Err(io::Error::other("the engine gives no digest of the image"));
    }
    // An image can be removed from under its container, and is then known by its own digest and name alone.
    let given = get::<InspectedImage>(engine, &format!("/images/{own}/json"), end)?;
    let given = given.and_then(|image| image.repo_digests).unwrap_or_default();
    let digests = given.iter().filter_map(|text| text.parse().ok()).take(MAX_DIGESTS).collect();
    Ok(Some(Image { id: own, name: Name::normalize_name(&inspected.config.image), digests }))
}

/// The engine's object at `path`; `None` if the engine has none.
fn get<T: DeserializeOwned>(engine: &Path, path: &str, end: Instant) -> io::Result<Option<T>> {
    let mut stream = connected(engine, end)?;
    // By HTTP/1.0 the answer ends where the connection does, and is in no pieces.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n").as_bytes())?;
    let answer = read(stream, end)?;
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let body = match head.parse(&answer).map_err(not_http)? {
        httparse::Status::Complete(length) => answer.get(length..).unwrap_or_default(),
        httparse::Status::Partial => return Err(not_http("it stops in the head")),
    };
    match head.code {
        Some(200) => serde_json::from_slice(body).map(Some).map_err(not_http),
        Some(404) => Ok(None),
        code => Err(io::Error::other(format!("it answers {}", code.unwrap_or_default()))),
    }
}

fn not_http(error: impl Display) -> io::Error {
    io::Error::other(format!("its answer cannot be read: {error}"))
}

fn connected(engine: &Path, end: Instant) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let left = TimeVal::new(left.as_secs() as i64, i64::from(left.subsec_micros()));
    // Connecting waits, too, where a queue is full.
    setsockopt(&socket, sockopt::SendTimeout, &left)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &left)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(engine)?)?;
    Ok(socket.into())
}

fn read(stream: UnixStream, end: Instant) -> io::Result<Vec<u8>> {
    let (mut answer, mut stream) = (Vec::new(), stream.take(MAX_RESPONSE_SIZE + 1));
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            length => answer.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
        // Each read has its own time-out, which drops that come one by one never meet.
        if Instant::now() > end {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    if answer.len() as u64 > MAX_RESPONSE_SIZE {
        Err(io::Error::other("its answer is too long"))
    } else {
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::{Receiver, channel};

    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "3f9a0c1d2e4b5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";
    const IMAGE: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    /// An engine that answers each question with the head and body that `says` gives it, and shows the paths that it
    /// was asked for.
    fn engine(
        says: impl Fn(&str) -> Option<(&'static str, String)> + Send + 'static,
    ) -> (tempfile::TempDir, Engine, Receiver<String>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (asked, paths) = channel();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for mut stream in listener.incoming().map(Result::unwrap) {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let path =
                    line.strip_prefix("GET ").unwrap().strip_suffix(" HTTP/1.0\r\n").unwrap().to_owned();
                let answer = says(&path);
                let _ = asked.send(path);
                match answer {
                    Some((head, body)) => {
                        drop(write!(stream, "HTTP/1.0 {head}\r\nServer: Docker\r\n\r\n{body}"))
                    }
                    None => silent.push(stream),
                }
            }
        });
        let line = RequestChannel::to_thread(move |question| answer(&socket, question)).unwrap();
        (folder, Engine::by(line), paths)
    }

    fn container(id: &str, image: &str) -> String {
        let config = json!({ "Image": "acme/agent", "Env": ["KEY=value"], "Labels": {} });
        json!({ "Id": id, "Name": "/agent", "Image": image, "Config": config, "State": { "Pid": 7 } })
            .to_string()
    }

    fn digests(digests: Value) -> String {
        json!({ "Id": IMAGE, "RepoTags": ["evil:1"], "RepoDigests": digests }).to_string()
    }

    #[test]
    fn image_is_read_from_engine_once() {
        let given = format!("acme/agent@{IMAGE}");
        let (_folder, engine, paths) = engine(move |path| {
            let image = digests(json!([given, "<none>@<none>"]));
            Some(("200 OK", if path.starts_with("/containers") { container(ID, IMAGE) } else { image }))
        });
        for _ in 0..3 {
            let image = engine.image(ID).unwrap().unwrap();
            assert_eq!(image.id, IMAGE);
            assert_eq!(image.name.as_ref().unwrap().to_string(), "docker.io/acme/agent:latest");
            assert_eq!(image.digests, [format!("acme/agent@{IMAGE}").parse().unwrap()]);
        }
        let asked: Vec<_> = paths.try_iter().collect();
        assert_eq!(asked, [format!("/containers/{ID}/json"), format!("/images/{IMAGE}/json")]);
    }

    #[test]
    fn removed_image_keeps_name_and_digest() {
        let (_folder, engine, _) = engine(|path| {
            let found = path.starts_with("/containers");
            Some(if found {
                ("200 OK", container(ID, &IMAGE[7..]))
            } else {
                ("404 Not Found", String::new())
            })
        });
        let image = engine.image(ID).unwrap().unwrap();
        assert_eq!((&*image.id, image.digests.len()), (IMAGE, 0));
    }

    #[test]
    fn unknown_container_has_no_image() {
        let (_folder, engine, paths) = engine(|_| Some(("404 Not Found", r#"{"message":"no"}"#.to_owned())));
        assert!(engine.image(ID).unwrap().is_none());
        assert!(engine.image(&ID.replace('3', "4")).unwrap().is_none());
        assert_eq!(paths.try_iter().count(), 2);
    }

    #[test]
    fn failing_engine_proves_nothing_and_is_not_retried_at_once() {
        let other = ID.replace('3', "4");
        let answers = [
            Some(("500 Internal Server Error", container(ID, IMAGE))),
            Some(("200 OK", container(&other, IMAGE))),
            Some(("200 OK", container(ID, "sha256:1"))),
            Some(("200 OK", container(ID, IMAGE)[..40].to_owned())),
            Some(("200 OK", "{}".to_owned())),
            Some(("200 OK", " ".repeat(MAX_RESPONSE_SIZE as usize + 1))),
            Some(("", String::new())),
            None,
        ];
        for answer in answers {
            let shown = format!("{:?}", answer.as_ref().map(|(head, body)| (*head, body.len())));
            let (_folder, engine, paths) = engine(move |_| answer.clone());
            assert!(engine.image(ID).is_err() && engine.image(ID).is_err(), "{shown}");
            assert_eq!(paths.try_iter().count(), 1, "{shown}");
        }
        let gone = Engine::by(
            RequestChannel::to_thread(|question| answer(Path::new("/nowhere.sock"), question)).unwrap(),
        );
        assert!(gone.image(ID).is_err());
    }

    #[test]
    fn invalid_id_is_not_requested() {
        let (_folder, engine, paths) = engine(|_| Some(("200 OK", container(ID, IMAGE))));
        let longer = format!("{ID}0");
        for id in ["", "x/../../images/json?", &ID[..12], &longer, &ID.to_uppercase()] {
            engine.asker.lock().unwrap().rests_until = None;
            assert!(engine.image(id).is_err(), "{id}");
        }
        assert_eq!(paths.try_iter().count(), 0);
    }
}
