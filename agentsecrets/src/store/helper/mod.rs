//! The store helper: a small process that asks the stores that need the session bus or start a program. The process
//! that reads hostile bytes may do neither. The helper reads no byte of an agent, never writes to a store, and answers
//! three requests: the value of a name, the list of names, and the version of the store.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::read_only::read_only;
use super::{Entry, Key, MAX_VALUE_SIZE, Store, StoreConfig, StoreError, StoreKind};
use crate::privsep::helper::{self, RequestChannel};
use crate::privsep::{Channel, Limits};
use crate::sys::home::Home;
use crate::sys::process;
use crate::types::name::{Environment, Project, SecretName};
use crate::types::secret::Secret;
use crate::types::sync::MutexExt;

/// The longest answer is a value, or the names of very many.
const LIMITS: Limits = Limits { length: 8 * MAX_VALUE_SIZE, descriptors: 0 };
/// Added to a store's own time limit for the helper's response.
const RESPONSE_MARGIN: Duration = Duration::from_secs(5);

/// The channels to the store helper, one per store, so that a store that hangs delays no other.
pub struct StoreHelper {
    lines: Vec<(StoreKind, RequestChannel)>,
}

#[derive(Serialize, Deserialize)]
enum HelperRequest {
    Get(Key),
    List(Project, Environment),
    Version,
}

/// The part of an entry that the helper sends.
#[derive(Serialize, Deserialize)]
struct HelperResponse {
    name: SecretName,
    environment: Environment,
    updated: Option<String>,
    placeholder: Option<String>,
}

impl StoreHelper {
    /// Forks the helper for the stores of `choices` that the calling process does not open itself, for one `project`
    /// and `environment`. It protects its memory by `conceal`, and ends when the channels close. The calling process
    /// must have one thread, and be the user whose stores they are, without privileges.
    pub fn start(
        choices: &[StoreConfig],
        home: &Home,
        (project, environment): (&Project, &Environment),
        conceal: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        let (mut lines, mut theirs) = (Vec::new(), Vec::new());
        for choice in choices.iter().filter(|choice| choice.kind.is_in_helper()) {
            let (ours, other) = Channel::pair(LIMITS)?;
            lines.push((
                choice.kind.clone(),
                RequestChannel::new(ours, choice.kind.timeout() + RESPONSE_MARGIN)?,
            ));
            theirs.push((choice.kind.clone(), other));
        }
        if !theirs.is_empty() {
            let scope = (project.clone(), environment.clone());
            process::fork(|| match serve(theirs, home, scope, conceal) {
                Ok(()) => 0,
                Err(_) => 1,
            })?;
        }
        Ok(Self { lines })
    }

    /// The store of this `kind`, asked through the helper.
    pub fn store(&mut self, kind: &StoreKind) -> Result<Arc<dyn Store>, StoreError> {
        let at = self.lines.iter().position(|(theirs, _)| theirs == kind);
        let at = at.ok_or_else(|| StoreError::Io(format!("nobody keeps the {}", kind.name())))?;
        let (kind, line) = self.lines.swap_remove(at);
        Ok(Arc::new(RemoteStore::new(kind.name(), line)))
    }
}

/// Serves the channels in the helper process.
fn serve(
    lines: Vec<(StoreKind, Channel)>,
    home: &Home,
    scope: (Project, Environment),
    conceal: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    // Nothing that is opened later may take the place of a standard stream.
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut kept = vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    kept.extend(lines.iter().map(|(_, line)| line.as_fd()));
    helper::become_helper(&kept, || {
        // Of who started us, who may be another user than we are: there is no bus of ours.
        if std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| !is_ours(folder.as_ref())) {
            process::forget_variable("XDG_RUNTIME_DIR")?;
        }
        conceal()
    })?;
    // Closed above already, and perhaps another's by now.
    std::mem::forget(null);
    let (end, ended) = channel();
    for (kind, line) in lines {
        let (store, scope, end) = (kind.open(home), scope.clone(), end.clone());
        std::thread::Builder::new().name(kind.name().to_owned()).spawn(move || {
            let _ = helper::serve(&line, |question| (answer(&*store, &scope, question), None));
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

/// Answers a question about one project and environment: a tag, and what it says.
fn answer(store: &dyn Store, scope: &(Project, Environment), question: &[u8]) -> Vec<u8> {
    let others =
        |project: &Project, environment: &Environment| (project, environment) != (&scope.0, &scope.1);
    let foreign = || StoreError::Refused("this agent's secrets are those of another environment".into());
    let Ok(question) = serde_json::from_slice(question) else { return tagged(b'?', &[]) };
    let answered = match question {
        HelperRequest::Get(key) if others(&key.project, &key.environment) => Err(foreign()),
        HelperRequest::List(project, environment) if others(&project, &environment) => Err(foreign()),
        HelperRequest::Get(key) => store.get(&key).map(|value| match value {
            Some(value) => tagged(b'+', value.expose()),
            None => tagged(b'-', &[]),
        }),
        HelperRequest::List(project, environment) => store.list(&project, &environment).map(|entries| {
            let response: Vec<HelperResponse> = entries.into_iter().map(HelperResponse::from).collect();
            serde_json::to_vec(&response).map_or_else(|_| tagged(b'?', &[]), |json| tagged(b'+', &json))
        }),
        HelperRequest::Version => store.version().map(|version| tagged(b'+', &version.to_be_bytes())),
    };
    answered.unwrap_or_else(|error| {
        let tag = match error {
            StoreError::Absent(_) => b'A',
            StoreError::Locked(_) => b'L',
            StoreError::Refused(_) => b'R',
            StoreError::Damaged(_) => b'D',
            StoreError::Io(_) => b'I',
        };
        tagged(tag, error.to_string().as_bytes())
    })
}

/// A tag and what follows it, in one allocation: it may be a value, and is wiped once it was sent.
fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    let mut answer = Vec::with_capacity(1 + rest.len());
    answer.push(tag);
    answer.extend_from_slice(rest);
    answer
}

/// A store that is asked through the helper.
struct RemoteStore {
    name: &'static str,
    line: Mutex<HelperChannel>,
}

/// None once it broke.
struct HelperChannel(Option<RequestChannel>);

impl RemoteStore {
    fn new(name: &'static str, channel: RequestChannel) -> Self {
        Self { name, line: Mutex::new(HelperChannel(Some(channel))) }
    }

    /// The helper's response: nothing, or bytes.
    fn ask(&self, question: &HelperRequest) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let mut line = self.line.lock_ignoring_poison();
        match line.ask(question) {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StoreError::Locked(format!(
                "the process that asks the {} does not answer: end this and start again",
                self.name
            ))),
            Err(_) => {
                line.0 = None;
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

impl HelperChannel {
    #[allow(clippy::type_complexity, reason = "an answer, over a line that may break")]
    fn ask(
        &mut self,
        question: &HelperRequest,
    ) -> io::Result<Result<Option<Zeroizing<Vec<u8>>>, StoreError>> {
        let channel = self.0.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut answer = channel.request(&serde_json::to_vec(question)?)?.body;
        let tag = *answer.first().ok_or(io::ErrorKind::InvalidData)?;
        answer.drain(..1);
        let reason = || String::from_utf8_lossy(&answer).into_owned();
        Ok(match tag {
            b'-' => Ok(None),
            b'+' => Ok(Some(answer)),
            b'A' => Err(StoreError::Absent(reason())),
            b'L' => Err(StoreError::Locked(reason())),
            b'R' => Err(StoreError::Refused(reason())),
            b'D' => Err(StoreError::Damaged(reason())),
            b'I' => Err(StoreError::Io(reason())),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl Store for RemoteStore {
    fn name(&self) -> &'static str {
        self.name
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let answer = self.ask(&HelperRequest::Get(key.clone()))?;
        Ok(answer.map(|mut value| Secret::new(std::mem::take(&mut *value))))
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        let answer = self.ask(&HelperRequest::List(project.clone(), environment.clone()))?;
        let response: Vec<HelperResponse> =
            answer.and_then(|answer| serde_json::from_slice(&answer).ok()).ok_or_else(|| self.unclear())?;
        let entry = |HelperResponse { name, environment, updated, placeholder }| Entry {
            name,
            environment,
            updated,
            placeholder,
            store: self.name,
        };
        Ok(response.into_iter().map(entry).collect())
    }

    fn set(&self, _: &Key, _: Secret, _: Option<&str>) -> Result<(), StoreError> {
        read_only(self.name)
    }

    fn version(&self) -> Result<u64, StoreError> {
        let answer = self.ask(&HelperRequest::Version)?;
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

impl From<Entry> for HelperResponse {
    fn from(entry: Entry) -> Self {
        let Entry { name, environment, updated, placeholder, store: _ } = entry;
        Self { name, environment, updated, placeholder }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::FileConfig;

    fn key(name: &str) -> Key {
        Key { project: Project::default(), environment: Environment::default(), name: name.parse().unwrap() }
    }

    /// A line to a store of files, kept by a thread: tests have threads, and cannot fork.
    fn line(folder: &std::path::Path) -> RemoteStore {
        let (ours, theirs) = Channel::pair(LIMITS).unwrap();
        let kind = StoreKind::Mounted(FileConfig {
            path: folder.to_str().unwrap().to_owned(),
            project: None,
            environment: None,
        });
        let store = kind.open(&Home::at(folder));
        let scope = (Project::default(), Environment::default());
        std::thread::spawn(move || {
            helper::serve(&theirs, |question| (answer(&*store, &scope, question), None))
        });
        RemoteStore::new("mounted", RequestChannel::new(ours, RESPONSE_MARGIN).unwrap())
    }

    #[test]
    fn values_names_versions_and_errors_pass_the_channel() {
        let folder = tempfile::tempdir().unwrap();
        let store = line(folder.path());
        assert!(store.get(&key("A")).unwrap().is_none());
        let large: Vec<u8> = (0..MAX_VALUE_SIZE).map(|n| n as u8).collect();
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
        assert!(
            matches!(store.get(&key("A")), Err(StoreError::Absent(reason)) if reason.contains("mount it"))
        );
    }

    #[test]
    fn failing_helper_is_an_error_not_an_empty_answer() {
        let ours = |timeout| {
            let (ours, theirs) = Channel::pair(LIMITS).unwrap();
            (RemoteStore::new("keychain", RequestChannel::new(ours, timeout).unwrap()), theirs)
        };
        let gone = ours(RESPONSE_MARGIN).0;
        for _ in 0..2 {
            assert!(
                matches!(gone.get(&key("A")), Err(StoreError::Locked(reason)) if reason.contains("start again"))
            );
        }
        let (silent, theirs) = ours(Duration::from_millis(50));
        assert!(
            matches!(silent.get(&key("A")), Err(StoreError::Locked(reason)) if reason.contains("does not answer"))
        );
        // The late answer to the first question is not the second's.
        theirs.send(&[&1u64.to_be_bytes()[..], b"+x"].concat(), &[]).unwrap();
        theirs.send(&[&2u64.to_be_bytes()[..], b"+y"].concat(), &[]).unwrap();
        assert_eq!(silent.get(&key("A")).unwrap().unwrap().expose(), b"y");
        for nonsense in [&b"ab"[..], b"\0\0\0\0\0\0\0\x01?", b"\0\0\0\0\0\0\0\x01"] {
            let (store, theirs) = ours(RESPONSE_MARGIN);
            theirs.send(nonsense, &[]).unwrap();
            assert!(store.get(&key("A")).is_err());
        }
    }
}
