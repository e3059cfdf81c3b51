//! How a held request stands in the home, where a person's command in another process finds and answers it: a
//! file for each question, written by the process that serves, and one for its answer beside it. Whoever can
//! write there is the person: the folder is not in an agent's view.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::By;
use crate::sys::files::{check_private, private_folder};
use crate::types::name::SecretName;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;
/// What ends the name of a question, an answer, and the lock of a serving process.
const QUESTION: &str = "json";
const ANSWER: &str = "answer";
const SERVING: &str = "serving";

/// What a person is asked. It holds what the agent said, and no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What the person types.
    pub id: String,
    /// Which serving process asks.
    pub desk: String,
    /// SHA-256 of all that is asked for.
    pub digest: String,
    /// When it was asked, in RFC 3339.
    pub asked: String,
    /// Until when the agent waits, in seconds since 1970.
    pub waits_until: i64,
    /// Until when an answer counts.
    pub counts_until: i64,
    /// The agent entry.
    pub agent: String,
    /// The session.
    pub session: String,
    /// The rule that holds it.
    pub rule: String,
    /// Who asks, as the kernel says.
    pub program: Program,
    /// The method.
    pub method: String,
    /// The URL, with the query as the agent sent it.
    pub url: String,
    /// The path, as rules read it.
    pub path: String,
    /// The headers that are bound, but for those in which credentials stand.
    pub headers: Vec<(String, String)>,
    /// The secrets to be spent.
    pub secrets: Vec<Spent>,
    /// Whether it opens a WebSocket, whose messages nobody is asked about.
    pub websocket: bool,
    /// The length of the body, in bytes.
    pub body_bytes: u64,
    /// The body, or its beginning, as text.
    pub body: String,
    /// Whether more of it is sent than stands here, or other bytes.
    pub body_is_partial: bool,
    /// What a yes for the session covers.
    pub same: String,
}

/// A secret that would be spent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Which.
    pub name: SecretName,
    /// Where in the request it stands; empty where it only signs or proves.
    pub place: String,
}

/// The program that asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its process.
    pub pid: u32,
    /// Its executable.
    pub exe: String,
    /// That file's SHA-256.
    pub sha256: String,
    /// Its user.
    pub uid: u32,
    /// Its cgroup.
    pub cgroup: String,
}

/// What a person says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes, to this one.
    Once,
    /// Yes, to all that are the same, for the session.
    Session,
    /// No, to this one.
    Deny,
    /// No, to all that are the same, for the session.
    DenySession,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// What the person saw.
    digest: String,
    verdict: Verdict,
    by: By,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum NotAnswered {
    /// Another answer is there.
    #[error("it was answered already")]
    Already,
    /// A file could not be written.
    #[error("the answer cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// The questions in `folder` whose answer still counts, oldest first.
pub fn list(folder: &Path) -> io::Result<Vec<Question>> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let now = seconds();
    let mut questions = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == QUESTION)
            // One that was just withdrawn is not there any longer.
            && let Ok(text) = read_ours(&path)
            && let Ok(question) = serde_json::from_slice::<Question>(&text)
            && question.counts_until > now
            && is_served(folder, &question.desk)
            && !answer_path(folder, &question.id).exists()
        {
            questions.push(question);
        }
    }
    questions.sort_by(|one, other| (one.asked.as_str(), &one.id).cmp(&(other.asked.as_str(), &other.id)));
    Ok(questions)
}

/// Answers `question`, as it was seen.
pub fn answer(folder: &Path, question: &Question, verdict: Verdict, by: By) -> Result<(), NotAnswered> {
    let answer = Answer { digest: question.digest.clone(), verdict, by };
    let text = serde_json::to_vec(&answer).map_err(io::Error::from)?;
    // Whole, and the folder owner's, before it is there under its name; and it is there only once.
    let new = folder.join(format!("{}-{}", question.id, std::process::id())).with_extension("new");
    crate::sys::files::replace(&new, &text)?;
    let placed = fs::hard_link(&new, answer_path(folder, &question.id));
    fs::remove_file(&new)?;
    placed.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => NotAnswered::Already,
        _ => NotAnswered::Io(error),
    })
}

/// The answer to the question `id`, if there is one about this `digest`. What nobody but the folder's owner or
/// root may have written counts; anything else is no answer.
pub(super) fn answered(folder: &Path, id: &str, digest: &str) -> Option<(Verdict, By)> {
    let path = answer_path(folder, id);
    let text = match read_ours(&path) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "an answer to a held request is not believed");
            return None;
        }
    };
    let answer: Answer = serde_json::from_slice(&text).ok()?;
    (answer.digest == digest).then_some((answer.verdict, answer.by))
}

/// Writes the file of `question`.
pub(super) fn ask(folder: &Path, question: &Question) -> io::Result<()> {
    let text = serde_json::to_vec(question)?;
    crate::sys::files::replace(&question_path(folder, &question.id), &text)
}

/// Whether `id` is taken.
pub(super) fn is_taken(folder: &Path, id: &str) -> bool {
    question_path(folder, id).exists() || answer_path(folder, id).exists()
}

/// Removes a question and its answer.
pub(super) fn remove(folder: &Path, id: &str) {
    for path in [question_path(folder, id), answer_path(folder, id)] {
        // What is gone already is as good as removed.
        let _ = fs::remove_file(path);
    }
}

/// The mark of a process that serves: as long as its lock is held, its questions are asked.
pub(super) struct Serving {
    path: PathBuf,
    _file: File,
}

impl Serving {
    /// Marks this process as serving under the name `desk`, and sweeps up after those that are gone.
    pub(super) fn begin(folder: &Path, desk: &str) -> io::Result<Self> {
        private_folder(folder)?;
        sweep(folder)?;
        let path = folder.join(desk).with_extension(SERVING);
        let file = crate::sys::files::append(&path)?;
        file.try_lock().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { path, _file: file })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn is_served(folder: &Path, desk: &str) -> bool {
    let file = File::open(folder.join(desk).with_extension(SERVING));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// Removes what processes that are gone have left.
fn sweep(folder: &Path) -> io::Result<()> {
    let with = |extension: &str| -> io::Result<Vec<PathBuf>> {
        let paths = folder.read_dir()?.map(|entry| entry.map(|entry| entry.path()));
        paths
            .filter(|path| path.as_ref().map_or(true, |path| path.extension() == Some(extension.as_ref())))
            .collect()
    };
    for path in with(QUESTION)? {
        let question = read_ours(&path).ok().and_then(|text| serde_json::from_slice::<Question>(&text).ok());
        if question.is_none_or(|question| !is_served(folder, &question.desk)) {
            let _ = fs::remove_file(&path);
        }
    }
    for path in with(ANSWER)?.into_iter().filter(|path| !path.with_extension(QUESTION).exists()) {
        let _ = fs::remove_file(path);
    }
    for path in with(SERVING)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if !is_served(folder, &name) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn question_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(id).with_extension(QUESTION)
}

fn answer_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(id).with_extension(ANSWER)
}

/// Seconds since 1970.
pub fn seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The file's text, if it is a file of the folder's owner or of root that nobody else may touch.
fn read_ours(path: &Path) -> io::Result<Vec<u8>> {
    if fs::symlink_metadata(path)?.file_type().is_symlink() {
        return Err(io::Error::other("it is a link"));
    }
    let file = File::open(path)?;
    check_owner(&file, path)?;
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(unix)]
fn check_owner(file: &File, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    check_private(file, path)?;
    let (own, folder) = (file.metadata()?, fs::metadata(path.parent().unwrap_or(Path::new(".")))?);
    if !own.is_file() || (own.uid() != folder.uid() && own.uid() != 0) {
        return Err(io::Error::other("it belongs to another user than its folder"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_owner(file: &File, path: &Path) -> io::Result<()> {
    check_private(file, path)
}
