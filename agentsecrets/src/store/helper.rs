//! The keeper: a small process that asks the stores which are no file of ours. The keychain is reached by
//! the person's session bus and a command by starting a program, and the process that reads hostile bytes
//! may do neither; so this one may, reads no byte of an agent, and answers three questions: what is the
//! value of this name, which names are there, has anything changed? It cannot be made to write.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Choice, Entry, Key, Kind, LARGEST_VALUE, Store, StoreError, read_only};
use crate::sys::home::Home;
use crate::sys::process;
use crate::types::name::{Environment, Project, SecretName};
use crate::types::secret::Secret;

/// The longest question, in bytes.
const LONGEST_QUESTION: usize = 4 * 1024;
/// The longest answer, in bytes: a value, or the names of very many.
const LONGEST_ANSWER: usize = 8 * LARGEST_VALUE;
/// How much longer than the store itself the keeper may take.
const MARGIN: Duration = Duration::from_secs(5);

/// The lines to the keeper, one for each store: what hangs holds up nothing else.
pub struct Keeper {
    lines: Vec<(Kind, UnixStream)>,
}

#[derive(Serialize, Deserialize)]
enum Question {
    Get(Key),
    List(Project, Environment),
    Version,
}

/// What of an entry goes over the line.
#[derive(Serialize, Deserialize)]
struct Told {
    name: SecretName,
    environment: Environment,
    updated: Option<String>,
    placeholder: Option<String>,
}

impl Keeper {
    /// Forks the keeper of those `choices` that are no vault, if there are any, for one `project` and
    /// `environment`; it protects itself by `conceal` and ends when the lines close. The calling process
    /// must have one thread, and be the user whose stores they are, without privileges.
    pub fn start(
        choices: &[Choice],
        home: &Home,
        (project, environment): (&Project, &Environment),
        conceal: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        let (mut lines, mut theirs) = (Vec::new(), Vec::new());
        for choice in choices.iter().filter(|choice| choice.kind != Kind::Vault) {
            let (ours, other) = UnixStream::pair()?;
            ours.set_read_timeout(Some(choice.kind.patience() + MARGIN))?;
            lines.push((choice.kind.clone(), ours));
            theirs.push((choice.kind.clone(), other));
        }
        if !theirs.is_empty() {
            let scope = (project.clone(), environment.clone());
            process::fork(|| match keep(theirs, home, scope, conceal) {
                Ok(()) => 0,
                Err(_) => 1,
            })?;
        }
        Ok(Self { lines })
    }

    /// The store of this `kind` that the keeper asks.
    pub fn store(&mut self, kind: &Kind) -> Result<Arc<dyn Store>, StoreError> {
        let at = self.lines.iter().position(|(theirs, _)| theirs == kind);
        let at = at.ok_or_else(|| StoreError::Io(format!("nobody keeps the {}", kind.name())))?;
        let (kind, line) = self.lines.swap_remove(at);
        Ok(Arc::new(Elsewhere::new(kind.name(), line)))
    }
}

/// The life of the keeper.
fn keep(
    lines: Vec<(Kind, UnixStream)>,
    home: &Home,
    scope: (Project, Environment),
    conceal: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    // Nothing that is opened later may take the place of a standard stream.
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut kept = vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    kept.extend(lines.iter().map(|(_, line)| line.as_fd()));
    process::close_all_but(&kept)?;
    // Closed above already, and perhaps another's by now.
    std::mem::forget(null);
    std::env::set_current_dir("/")?;
    // Of who started us, who may be another user than we are: there is no bus of ours.
    if std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| !is_ours(folder.as_ref())) {
        process::forget_variable("XDG_RUNTIME_DIR")?;
    }
    conceal()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let (end, ended) = channel();
    for (kind, line) in lines {
        let (store, scope, end) = (super::kept(&kind, home), scope.clone(), end.clone());
        std::thread::Builder::new().name(kind.name().to_owned()).spawn(move || {
            let _ = answer(&*store, &scope, line);
            let _ = end.send(());
        })?;
    }
    // They close together.
    let _ = ended.recv();
    Ok(())
}

fn is_ours(folder: &Path) -> bool {
    let owner = std::fs::metadata(folder).map(|folder| folder.uid());
    owner.is_ok_and(|owner| owner == nix::unistd::geteuid().as_raw())
}

/// Answers the questions about one project and environment that come over a line, until it closes.
fn answer(store: &dyn Store, scope: &(Project, Environment), mut line: UnixStream) -> io::Result<()> {
    let others =
        |project: &Project, environment: &Environment| (project, environment) != (&scope.0, &scope.1);
    let foreign = || StoreError::Refused("this agent's secrets are those of another environment".into());
    loop {
        let question = receive(&mut line, LONGEST_QUESTION)?;
        let (number, question) = question.split_at_checked(8).ok_or(io::ErrorKind::InvalidData)?;
        let mut parts = Parts { number, tag: b'-', rest: Zeroizing::default() };
        match serde_json::from_slice(question)? {
            Question::Get(key) if others(&key.project, &key.environment) => parts.fail(&foreign()),
            Question::List(project, environment) if others(&project, &environment) => parts.fail(&foreign()),
            Question::Get(key) => match store.get(&key) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    parts.tag = b'+';
                    parts.rest = Zeroizing::new(value.expose().to_vec());
                }
                Err(error) => parts.fail(&error),
            },
            Question::List(project, environment) => match store.list(&project, &environment) {
                Ok(entries) => {
                    let told: Vec<Told> = entries.into_iter().map(Told::from).collect();
                    parts.tag = b'+';
                    parts.rest = Zeroizing::new(serde_json::to_vec(&told)?);
                }
                Err(error) => parts.fail(&error),
            },
            Question::Version => match store.version() {
                Ok(version) => {
                    parts.tag = b'+';
                    parts.rest = Zeroizing::new(version.to_be_bytes().to_vec());
                }
                Err(error) => parts.fail(&error),
            },
        }
        parts.send(&mut line)?;
    }
}

/// An answer on its way: the number of its question, what kind it is, and the rest.
struct Parts<'a> {
    number: &'a [u8],
    tag: u8,
    rest: Zeroizing<Vec<u8>>,
}

impl Parts<'_> {
    fn fail(&mut self, error: &StoreError) {
        self.tag = match error {
            StoreError::Absent(_) => b'A',
            StoreError::Locked(_) => b'L',
            StoreError::Refused(_) => b'R',
            StoreError::Damaged(_) => b'D',
            StoreError::Io(_) => b'I',
        };
        self.rest = Zeroizing::new(error.to_string().into_bytes());
    }

    fn send(&self, line: &mut UnixStream) -> io::Result<()> {
        let length = u32::try_from(self.number.len() + 1 + self.rest.len()).map_err(io::Error::other)?;
        let mut head = length.to_be_bytes().to_vec();
        head.extend_from_slice(self.number);
        head.push(self.tag);
        line.write_all(&head)?;
        line.write_all(&self.rest)
    }
}

/// Receives one message of at most `longest` bytes. A time-out before its first byte leaves the line as it
/// was.
fn receive(line: &mut UnixStream, longest: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    let first = line.read(&mut length)?;
    let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
    line.read_exact(length.get_mut(first..).filter(|_| first > 0).ok_or_else(closed)?).map_err(broken)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > longest {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = Zeroizing::new(vec![0; length]);
    line.read_exact(&mut message).map_err(broken)?;
    Ok(message)
}

/// A message that stops in its middle.
fn broken(error: io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, error)
}

/// A store that the keeper asks.
struct Elsewhere {
    name: &'static str,
    line: Mutex<Line>,
}

struct Line {
    /// None once it broke.
    socket: Option<UnixStream>,
    asked: u64,
}

impl Elsewhere {
    fn new(name: &'static str, socket: UnixStream) -> Self {
        Self { name, line: Mutex::new(Line { socket: Some(socket), asked: 0 }) }
    }

    /// What the keeper says: nothing, or the bytes of an answer.
    fn ask(&self, question: &Question) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        match line.ask(question) {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StoreError::Locked(format!(
                "the process that asks the {} does not answer: end this and start again",
                self.name
            ))),
            Err(_) => {
                line.socket = None;
                Err(StoreError::Locked(format!(
                    "the process that asks the {} is gone: end this and start again",
                    self.name
                )))
            }
        }
    }

    fn unclear(&self) -> StoreError {
        StoreError::Io(format!("the process that asks the {} cannot be understood", self.name))
    }
}

impl Line {
    #[allow(clippy::type_complexity, reason = "an answer, over a line that may break")]
    fn ask(&mut self, question: &Question) -> io::Result<Result<Option<Zeroizing<Vec<u8>>>, StoreError>> {
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.asked += 1;
        let question = serde_json::to_vec(question)?;
        let length = u32::try_from(8 + question.len()).map_err(io::Error::other)?;
        socket.write_all(&[&length.to_be_bytes()[..], &self.asked.to_be_bytes(), &question].concat())?;
        loop {
            let message = receive(socket, LONGEST_ANSWER)?;
            let (number, rest) = message.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
            // An answer to a question that we gave up on is not an answer to this one.
            if u64::from_be_bytes(*number) != self.asked {
                continue;
            }
            let (tag, rest) = rest.split_first().ok_or(io::ErrorKind::InvalidData)?;
            let why = || String::from_utf8_lossy(rest).into_owned();
            return Ok(match tag {
                b'-' => Ok(None),
                b'+' => Ok(Some(Zeroizing::new(rest.to_vec()))),
                b'A' => Err(StoreError::Absent(why())),
                b'L' => Err(StoreError::Locked(why())),
                b'R' => Err(StoreError::Refused(why())),
                b'D' => Err(StoreError::Damaged(why())),
                b'I' => Err(StoreError::Io(why())),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            });
        }
    }
}

impl Store for Elsewhere {
    fn name(&self) -> &'static str {
        self.name
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let answer = self.ask(&Question::Get(key.clone()))?;
        Ok(answer.map(|mut value| Secret::new(std::mem::take(&mut *value))))
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        let answer = self.ask(&Question::List(project.clone(), environment.clone()))?;
        let told: Vec<Told> =
            answer.and_then(|answer| serde_json::from_slice(&answer).ok()).ok_or_else(|| self.unclear())?;
        let entry = |Told { name, environment, updated, placeholder }| Entry {
            name,
            environment,
            updated,
            placeholder,
            store: self.name,
        };
        Ok(told.into_iter().map(entry).collect())
    }

    fn set(&self, _: &Key, _: Secret, _: Option<&str>) -> Result<(), StoreError> {
        read_only(self.name)
    }

    fn version(&self) -> Result<u64, StoreError> {
        let answer = self.ask(&Question::Version)?;
        let bytes = answer.and_then(|answer| answer.as_slice().try_into().ok());
        bytes.map(u64::from_be_bytes).ok_or_else(|| self.unclear())
    }

    fn delete(&self, _: &Key) -> Result<bool, StoreError> {
        read_only(self.name)
    }

    fn is_writable(&self) -> bool {
        false
    }
}

impl From<Entry> for Told {
    fn from(entry: Entry) -> Self {
        let Entry { name, environment, updated, placeholder, store: _ } = entry;
        Self { name, environment, updated, placeholder }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::config::Mounted;

    fn key(name: &str) -> Key {
        Key { project: Project::default(), environment: Environment::default(), name: name.parse().unwrap() }
    }

    /// A line to a store of files, kept by a thread: tests have threads, and cannot fork.
    fn line(folder: &std::path::Path) -> Elsewhere {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let kind = Kind::Mounted(Mounted {
            path: folder.to_str().unwrap().to_owned(),
            project: None,
            environment: None,
        });
        let store = crate::store::kept(&kind, &Home::at(folder));
        std::thread::spawn(move || answer(&*store, &(Project::default(), Environment::default()), theirs));
        Elsewhere::new("mounted", ours)
    }

    #[test]
    fn values_names_generations_and_errors_come_over_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let store = line(folder.path());
        assert!(store.get(&key("A")).unwrap().is_none());
        let large: Vec<u8> = (0..LARGEST_VALUE).map(|n| n as u8).collect();
        std::fs::write(folder.path().join("A"), &large).unwrap();
        assert_eq!(store.get(&key("A")).unwrap().unwrap().expose(), large);
        let listed = store.list(&Project::default(), &Environment::default()).unwrap();
        assert_eq!((listed[0].name.as_str(), listed[0].store), ("A", "mounted"));
        let before = store.version().unwrap();
        std::fs::write(folder.path().join("B"), "b").unwrap();
        assert_ne!(store.version().unwrap(), before);
        assert!(store.set(&key("A"), Secret::new(b"x".to_vec()), None).is_err());
        // Whoever takes over the process that asks learns nothing of other environments.
        let elsewhere = Key { environment: "production".parse().unwrap(), ..key("A") };
        assert!(matches!(store.get(&elsewhere), Err(StoreError::Refused(_))));
        assert!(store.list(&elsewhere.project, &elsewhere.environment).is_err());
        drop(folder);
        assert!(matches!(store.get(&key("A")), Err(StoreError::Absent(why)) if why.contains("mount it")));
    }

    #[test]
    fn a_keeper_that_is_gone_silent_or_mad_is_an_error_and_never_an_empty_answer() {
        let gone = Elsewhere::new("keychain", UnixStream::pair().unwrap().0);
        for _ in 0..2 {
            assert!(
                matches!(gone.get(&key("A")), Err(StoreError::Locked(why)) if why.contains("start again"))
            );
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let silent = Elsewhere::new("keychain", ours);
        assert!(
            matches!(silent.get(&key("A")), Err(StoreError::Locked(why)) if why.contains("does not answer"))
        );
        // The late answer to the first question is not the second's.
        theirs.write_all(&[&10u32.to_be_bytes()[..], &1u64.to_be_bytes(), b"+x"].concat()).unwrap();
        theirs.write_all(&[&10u32.to_be_bytes()[..], &2u64.to_be_bytes(), b"+y"].concat()).unwrap();
        assert_eq!(silent.get(&key("A")).unwrap().unwrap().expose(), b"y");
        for nonsense in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02ab", b"\0\0\0\x09\0\0\0\0\0\0\0\x01?"] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(nonsense).unwrap();
            assert!(Elsewhere::new("keychain", ours).get(&key("A")).is_err());
        }
    }
}
