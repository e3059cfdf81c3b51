//! The files through which a person's command in another process sees and answers pending requests: one per
//! request, written by the server process, and one for its answer beside it. Write access to the folder
//! authenticates the person: no agent's sandbox contains it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::approved::Approver;
use crate::sys::files::{check_private, private_folder};
use crate::types::name::SecretName;

/// The largest file that is read, in bytes.
const MAX_FILE_SIZE: u64 = 1 << 20;
/// The file extensions of a request, an answer and the lock of a server process.
const REQUEST_EXTENSION: &str = "json";
const ANSWER_EXTENSION: &str = "answer";
const LOCK_EXTENSION: &str = "serving";

/// A request as a person sees it. It has the agent's own text and no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredRequest {
    /// The id that the person types.
    pub id: String,
    /// The server process.
    #[serde(rename = "desk")]
    pub server: String,
    /// The digest of the whole request.
    pub digest: String,
    /// The time of the request, in RFC 3339.
    #[serde(rename = "asked")]
    pub created: String,
    /// The end of the agent's wait, in seconds since 1970.
    pub waits_until: i64,
    /// The time until which an answer counts, in seconds since 1970.
    #[serde(rename = "counts_until")]
    pub expires: i64,
    /// The agent entry.
    pub agent: String,
    /// The session.
    pub session: String,
    /// The rule that requires the approval.
    pub rule: String,
    /// The program that asks, as reported by the kernel.
    pub program: Program,
    /// The method.
    pub method: String,
    /// The URL, with the query as the agent sent it.
    pub url: String,
    /// The path as rules see it.
    pub path: String,
    /// The headers in the digest. Values of headers with credentials are hidden.
    pub headers: Vec<(String, String)>,
    /// The secrets to spend.
    pub secrets: Vec<StoredSecretUse>,
    /// Whether it opens a WebSocket. Its messages need no approval.
    pub websocket: bool,
    /// The length of the body, in bytes.
    pub body_bytes: u64,
    /// The body, or its beginning, as text.
    pub body: String,
    /// Whether `body` is incomplete or not the exact bytes.
    pub body_is_partial: bool,
    /// The description of the requests that an approval for the session covers.
    #[serde(rename = "same")]
    pub scope: String,
}

/// A secret that the request spends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredSecretUse {
    /// The name of the secret.
    pub name: SecretName,
    /// The kind of its location in the request. Empty for signatures and certificates.
    pub place: String,
}

/// The program that asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    /// The process id.
    pub pid: u32,
    /// The executable.
    pub exe: String,
    /// The SHA-256 of the executable.
    pub sha256: String,
    /// The user id.
    pub uid: u32,
    /// The cgroup.
    pub cgroup: String,
}

/// A person's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Approve this request.
    Once,
    /// Approve all requests in its scope, for the session.
    Session,
    /// Deny this request.
    Deny,
    /// Deny all requests in its scope, for the session.
    DenySession,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAnswer {
    /// The digest of the request that the person saw.
    digest: String,
    verdict: Verdict,
    #[serde(rename = "by")]
    approver: Approver,
}

/// The reason why an answer was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The request has an answer already.
    #[error("it was answered already")]
    Already,
    /// A file cannot be written.
    #[error("the answer cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// The requests in `folder` that can be answered, oldest first.
pub(crate) fn list_requests(folder: &Path) -> io::Result<Vec<StoredRequest>> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let now = unix_seconds();
    let mut requests = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == REQUEST_EXTENSION)
            // A file may be removed meanwhile.
            && let Ok(text) = read_private(&path)
            && let Ok(request) = serde_json::from_slice::<StoredRequest>(&text)
            && request.expires > now
            && is_running(folder, &request.server)
            && !answer_path(folder, &request.id).exists()
        {
            requests.push(request);
        }
    }
    requests.sort_by(|one, other| (one.created.as_str(), &one.id).cmp(&(other.created.as_str(), &other.id)));
    Ok(requests)
}

/// Writes the answer to `request`.
pub(crate) fn write_answer(
    folder: &Path,
    request: &StoredRequest,
    verdict: Verdict,
    approver: Approver,
) -> Result<(), AnswerError> {
    let answer = StoredAnswer { digest: request.digest.clone(), verdict, approver };
    let text = serde_json::to_vec(&answer).map_err(io::Error::from)?;
    // The file is complete, with the folder's owner, before it is linked to its name. Linking fails if the
    // name exists.
    let new = folder.join(format!("{}-{}", request.id, std::process::id())).with_extension("new");
    crate::sys::files::replace(&new, &text)?;
    let placed = fs::hard_link(&new, answer_path(folder, &request.id));
    fs::remove_file(&new)?;
    placed.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => AnswerError::Already,
        _ => AnswerError::Io(error),
    })
}

/// The answer to request `id` with this `digest`. Files that others than the folder's owner or root may have
/// written are ignored.
pub(super) fn read_answer(folder: &Path, id: &str, digest: &str) -> Option<(Verdict, Approver)> {
    let path = answer_path(folder, id);
    let text = match read_private(&path) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "an answer to a request is ignored: its file is not private");
            return None;
        }
    };
    let answer: StoredAnswer = serde_json::from_slice(&text).ok()?;
    (answer.digest == digest).then_some((answer.verdict, answer.approver))
}

/// Writes the file of `request`.
pub(super) fn write_request(folder: &Path, request: &StoredRequest) -> io::Result<()> {
    let text = serde_json::to_vec(request)?;
    crate::sys::files::replace(&request_path(folder, &request.id), &text)
}

/// Whether `id` is taken.
pub(super) fn is_taken(folder: &Path, id: &str) -> bool {
    request_path(folder, id).exists() || answer_path(folder, id).exists()
}

/// Removes a request and its answer.
pub(super) fn remove(folder: &Path, id: &str) {
    for path in [request_path(folder, id), answer_path(folder, id)] {
        // It may be removed already.
        let _ = fs::remove_file(path);
    }
}

/// The lock file of a server process. Its requests are valid while it holds the lock.
pub(super) struct ServerLock {
    path: PathBuf,
    _file: File,
}

impl ServerLock {
    /// Locks `server` for this process, and removes files of processes that have ended.
    pub(super) fn acquire(folder: &Path, server: &str) -> io::Result<Self> {
        private_folder(folder)?;
        remove_stale(folder)?;
        let path = folder.join(server).with_extension(LOCK_EXTENSION);
        let file = crate::sys::files::append(&path)?;
        file.try_lock().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { path, _file: file })
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn is_running(folder: &Path, server: &str) -> bool {
    let file = File::open(folder.join(server).with_extension(LOCK_EXTENSION));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// Removes the files of server processes that have ended.
fn remove_stale(folder: &Path) -> io::Result<()> {
    let with = |extension: &str| -> io::Result<Vec<PathBuf>> {
        let paths = folder.read_dir()?.map(|entry| entry.map(|entry| entry.path()));
        paths
            .filter(|path| path.as_ref().map_or(true, |path| path.extension() == Some(extension.as_ref())))
            .collect()
    };
    for path in with(REQUEST_EXTENSION)? {
        let request =
            read_private(&path).ok().and_then(|text| serde_json::from_slice::<StoredRequest>(&text).ok());
        if request.is_none_or(|request| !is_running(folder, &request.server)) {
            let _ = fs::remove_file(&path);
        }
    }
    for path in
        with(ANSWER_EXTENSION)?.into_iter().filter(|path| !path.with_extension(REQUEST_EXTENSION).exists())
    {
        let _ = fs::remove_file(path);
    }
    for path in with(LOCK_EXTENSION)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if !is_running(folder, &name) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn request_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(id).with_extension(REQUEST_EXTENSION)
}

fn answer_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(id).with_extension(ANSWER_EXTENSION)
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Reads a file that belongs to the folder's owner or root and that nobody else may write.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    if fs::symlink_metadata(path)?.file_type().is_symlink() {
        return Err(io::Error::other("it is a link"));
    }
    let file = File::open(path)?;
    check_owner(&file, path)?;
    let mut text = Vec::new();
    file.take(MAX_FILE_SIZE).read_to_end(&mut text)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_request_of_0_1_0_round_trips() {
        let text = include_str!("../../../tests/compatibility/approval.json");
        let request: StoredRequest = serde_json::from_str(text).unwrap();
        assert_eq!((request.id.as_str(), request.server.as_str()), ("qn4fy", "gwdpcwtukjbc"));
        assert_eq!(serde_json::to_string(&request).unwrap(), text.trim_end());
    }
}
