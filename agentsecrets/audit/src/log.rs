//! Writing the log: a record opens when a request is accepted, its intent is on disk before a secret
//! leaves, and it is closed exactly once, by its outcome or by being dropped. Several threads and
//! several processes may write: each appends one whole line under a lock that is held for the time
//! of one write. What cannot be written is an error, never a silence, and outcomes are kept until they can be.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::anchor::{self, Anchor};
use super::chain::{ChainKey, FIRST};
use super::record::{Opening, Outcome, Record, Status};
use super::{AuditError, Files, at};
use crate::lock::wait_for;
use crate::retry_queue::RetryQueue;
use agentsecrets_sys::files;
use agentsecrets_sys::{self, Version};
use agentsecrets_types::name::{AgentName, SecretName};
use agentsecrets_types::sync::MutexExt;

/// The anchor follows the log at least this often while it grows.
const ANCHOR_INTERVAL: Duration = Duration::from_millis(250);
/// The longest line that is looked for at the log's end, in bytes.
const MAX_LINE_LEN: u64 = 256 * 1024;
const MAX_NOTES: usize = 32;

/// An open log. The anchor is brought up to date when the last owner drops it.
pub struct Log {
    shared: Arc<Shared>,
    /// Marks this process as alive, for those who find an intent without outcome.
    alive: WriterMark,
    count: AtomicU32,
    anchoring: Option<AnchorThread>,
}

struct Shared {
    files: Files,
    key: ChainKey,
    tail: Mutex<Tail>,
    /// The anchor could not be moved: nothing more is written until it can.
    adrift: AtomicBool,
    unwritten: RetryQueue,
}

/// The end of the log when it was last read.
struct Tail {
    log: File,
    end: Anchor,
}

/// The thread that moves the anchor.
struct AnchorThread {
    wake: SyncSender<()>,
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

/// A file that is locked for as long as its process lives.
struct WriterMark {
    writer: u32,
    path: PathBuf,
    _file: File,
}

/// The record of a request under way. Dropping it unfinished records `ABORTED`.
pub struct Pending {
    log: Arc<Log>,
    pub(crate) record: Record,
    started: Instant,
    finished: bool,
}

impl Log {
    /// Opens the log in `folder`, beginning it if there is none. Fails if the log does not reach its
    /// anchor: then something was removed, and only a person can decide to begin anew.
    pub fn open(folder: &Path) -> Result<Arc<Self>, AuditError> {
        let files = Files::of(folder);
        files::private_folder(folder).map_err(at(folder))?;
        let lock = anchor::lock(&files)?;
        let key = ChainKey::read_or_make(&files)?;
        let mut log = files::append(&files.log).map_err(at(&files.log))?;
        let head = Anchor::read(&files, &key)?;
        let length = log.metadata().map_err(at(&files.log))?.len();
        if head.is_none() && length > 0 {
            return Err(AuditError::Missing("its anchor is gone"));
        }
        head.unwrap_or_else(Anchor::start).check(&files, &mut log)?;
        // Under the lock too, or another process could sweep it up before it is held.
        let alive = WriterMark::mark(folder)?;
        drop(lock);
        let tail = Mutex::new(Tail { log, end: Anchor::start() });
        let shared = Arc::new(Shared {
            files,
            key,
            tail,
            adrift: AtomicBool::new(false),
            unwritten: RetryQueue::default(),
        });
        // Proves now, not at the first request, that the anchor can be written.
        shared.locate()?;
        shared.anchor_now()?;
        let anchoring = Some(AnchorThread::start(shared.clone())?);
        Ok(Arc::new(Self { shared, alive, count: AtomicU32::new(0), anchoring }))
    }

    /// Opens a record. Nothing is written yet.
    pub fn begin(self: &Arc<Self>, opening: Opening) -> Pending {
        let now = jiff::Timestamp::now();
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:012x}-{:08x}-{count:08x}", now.as_millisecond(), self.alive.writer);
        let record = Record::open(id, format!("{now:.3}"), opening);
        Pending { log: self.clone(), record, started: Instant::now(), finished: false }
    }

    /// Moves the anchor now, as the background does from time to time.
    #[cfg(test)]
    pub(super) fn anchor_for_tests(&self) -> Result<(), AuditError> {
        self.shared.anchor_now()
    }

    fn append(&self, record: &Record) -> Result<(), AuditError> {
        self.shared.catch_up()?;
        self.shared.append(record)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(anchoring) = &self.anchoring {
            // Full means that it is awake already.
            let _ = anchoring.wake.try_send(());
        }
    }
}

impl Pending {
    /// The record's id, to name it to a person or an agent.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// The requested host; empty before a target is known.
    pub fn domain(&self) -> &str {
        &self.record.domain
    }

    /// The agent entry that the caller turned out to be.
    pub fn agent(&mut self, agent: &AgentName) {
        self.record.agent_id = Some(agent.to_string());
    }

    /// Sets the method, the URL (see `target_url`) and the host.
    pub fn request(&mut self, method: &str, target_url: String, domain: String) {
        self.record.method = method.into();
        self.record.target_url = target_url;
        self.record.domain = domain;
    }

    /// The rule that decided.
    pub fn rule(&mut self, rule: impl Into<String>) {
        self.record.rule = Some(rule.into());
    }

    /// The secrets that will be spent, each with the name of its style.
    pub fn spends<'a>(&mut self, spends: impl IntoIterator<Item = (&'a SecretName, &'static str)>) {
        let (names, mut styles): (Vec<_>, Vec<_>) =
            spends.into_iter().map(|(name, style)| (name, style.to_owned())).unzip();
        styles.sort();
        styles.dedup();
        self.secret_keys(names);
        self.record.auth_styles = styles;
    }

    /// Something else that is worth knowing, without values.
    pub fn note(&mut self, note: String) {
        if !self.record.notes.contains(&note) && self.record.notes.len() < MAX_NOTES {
            self.record.notes.push(note);
        }
    }

    /// The secrets whose values a program is given, and in which `style`.
    pub fn exports<'a>(&mut self, names: impl IntoIterator<Item = &'a SecretName>, style: &str) {
        self.secret_keys(names);
        self.record.auth_styles = vec![style.into()];
    }

    /// The secrets that were asked for, where they will not be spent.
    pub fn secret_keys<'a>(&mut self, names: impl IntoIterator<Item = &'a SecretName>) {
        let mut names: Vec<_> = names.into_iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        self.record.secret_keys = names;
    }

    /// Writes that the request is about to leave. An error means that it must not.
    pub fn intent(&mut self) -> Result<(), AuditError> {
        self.record.clean();
        self.log.append(&self.record)
    }

    /// Whether records can be written: an error means that nothing must leave. Nothing is written for it.
    pub fn ready(&self) -> Result<(), AuditError> {
        self.log.shared.catch_up()
    }

    /// Writes how it ended. What cannot be written is kept, and written when it can be.
    pub fn finish(mut self, outcome: Outcome) -> Result<(), AuditError> {
        self.close(outcome)
    }

    fn close(&mut self, outcome: Outcome) -> Result<(), AuditError> {
        self.finished = true;
        self.record.status = outcome.status;
        self.record.status_code = outcome.status_code;
        self.record.reason = outcome.reason;
        self.record.redacted = outcome.redacted;
        self.record.duration_ms = Some(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.record.clean();
        let written = self.log.append(&self.record);
        if let Err(error) = &written {
            tracing::error!(id = self.record.id, %error, "a record could not be written: it is kept");
            self.log.shared.unwritten.keep(self.record.clone());
            self.log.wake();
        }
        written
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.finished {
            let reason = Some("the request was broken off".into());
            // A failure has been logged, and the next request will meet it too.
            let _ =
                self.close(Outcome { status: Status::Aborted, status_code: None, reason, redacted: false });
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(AnchorThread { wake, stop, thread }) = self.anchoring.take() {
            // It moves the anchor once more if there is cause, and ends.
            drop((wake, stop));
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Brings the log to where it can be written on: whole, and anchored.
    fn catch_up(&self) -> Result<(), AuditError> {
        if self.adrift.load(Ordering::Relaxed) {
            self.anchor_now()?;
        }
        self.unwritten.write(|record| self.append(record))
    }

    fn append(&self, record: &Record) -> Result<(), AuditError> {
        let failed = || at(&self.files.log);
        let mut line = serde_json::to_string(record).map_err(|error| failed()(error.into()))?;
        line.pop();
        let mut tail = self.tail.lock_ignoring_poison();
        let tail = &mut *tail;
        wait_for(&tail.log, &self.files.log)?;
        let written = self.write(tail, line);
        let unlocked = agentsecrets_sys::unlock(&tail.log).map_err(failed());
        written.and(unlocked)
    }

    /// Appends to the locked log.
    fn write(&self, tail: &mut Tail, mut line: String) -> Result<(), AuditError> {
        self.find_end(tail)?;
        let hash = self.key.seal(&mut line, &tail.end.last_hash);
        // One write for one line, at the end wherever we have read; what a full disk took of it is taken back.
        if let Err(error) = tail.log.write_all(line.as_bytes()) {
            let _ = tail.log.set_len(tail.end.length);
            return Err(at(&self.files.log)(error));
        }
        tail.end = Anchor { length: tail.end.length + line.len() as u64, last_hash: hash };
        Ok(())
    }

    /// Looks at the locked log's end, if another process has written since we did.
    fn find_end(&self, tail: &mut Tail) -> Result<(), AuditError> {
        let length = tail.log.seek(SeekFrom::End(0)).map_err(at(&self.files.log))?;
        if length == tail.end.length {
            return Ok(());
        }
        if length < tail.end.length {
            return Err(AuditError::Missing("lines that this process wrote are gone from its end"));
        }
        let start = length.saturating_sub(MAX_LINE_LEN);
        let mut bytes = Vec::new();
        let read = tail.log.seek(SeekFrom::Start(start)).and_then(|_| tail.log.read_to_end(&mut bytes));
        read.map_err(at(&self.files.log))?;
        // A line without end was never acknowledged: a crash cut it off, and so do we. That nothing
        // anchored goes with it was seen when the log was opened, and is seen by `verify`.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (lines, torn) = bytes.split_at_checked(whole).unwrap_or((&bytes, &[]));
        let end = length - torn.len() as u64;
        let last_hash = match lines.strip_suffix(b"\n") {
            None if end == 0 => FIRST,
            None => return Err(AuditError::Missing("its last line has no beginning")),
            Some(lines) => {
                let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                let last = std::str::from_utf8(last).ok().and_then(|line| self.key.own(line));
                last.ok_or(AuditError::Missing("its last line is not one that was written"))?
            }
        };
        if end < tail.end.length {
            return Err(AuditError::Missing("lines that this process wrote are gone from its end"));
        }
        if !torn.is_empty() {
            tracing::warn!(bytes = torn.len(), "an unfinished line was cut off the audit log");
            tail.log.set_len(end).map_err(at(&self.files.log))?;
        }
        tail.end = Anchor { length: end, last_hash: last_hash.into() };
        Ok(())
    }

    /// Finds the log's end when it is opened.
    fn locate(&self) -> Result<(), AuditError> {
        let mut tail = self.tail.lock_ignoring_poison();
        wait_for(&tail.log, &self.files.log)?;
        let found = self.find_end(&mut tail);
        let unlocked = agentsecrets_sys::unlock(&tail.log).map_err(at(&self.files.log));
        found.and(unlocked)
    }

    /// Brings the log to the disk and the anchor to its end.
    fn anchor_now(&self) -> Result<(), AuditError> {
        let anchored = || {
            let (end, log) = {
                let tail = self.tail.lock_ignoring_poison();
                (tail.end.clone(), tail.log.try_clone().map_err(at(&self.files.log))?)
            };
            self.check_in_place(&log)?;
            // Outside the lock: requests go on while the disk works.
            log.sync_data().map_err(at(&self.files.log))?;
            end.advance(&self.files, &self.key)
        };
        let result = anchored();
        self.adrift.store(result.is_err(), Ordering::Relaxed);
        result
    }

    /// Fails if the log that we write is not the one that is read: it was moved or replaced.
    fn check_in_place(&self, log: &File) -> Result<(), AuditError> {
        let ours = Version::of(log).map_err(at(&self.files.log))?;
        let there = File::open(&self.files.log).and_then(|there| Version::of(&there));
        if !there.is_ok_and(|there| there.is_of_same_file(&ours)) {
            return Err(AuditError::Missing("its file was moved away while in use"));
        }
        Ok(())
    }

    fn keep_anchored(&self, woken: &Receiver<()>, stopped: &Receiver<()>) {
        while woken.recv().is_ok() {
            // Lines come in crowds: one move for all that come while we wait, none after the last.
            let mut stopping = stopped.recv_timeout(ANCHOR_INTERVAL);
            let _ = woken.try_recv();
            while self.unwritten.write(|record| self.append(record)).is_err() && is_timeout(stopping) {
                stopping = stopped.recv_timeout(ANCHOR_INTERVAL);
            }
            if let Err(error) = self.anchor_now() {
                tracing::error!(%error, "the audit log cannot be anchored: requests are refused");
            }
        }
    }
}

impl AnchorThread {
    fn start(shared: Arc<Shared>) -> Result<Self, AuditError> {
        let (wake, woken) = sync_channel(1);
        let (stop, stopped) = sync_channel(0);
        let folder = shared.files.folder.clone();
        let work = move || shared.keep_anchored(&woken, &stopped);
        let thread = std::thread::Builder::new().name("audit-anchor".into()).spawn(work);
        Ok(Self { wake, stop, thread: thread.map_err(at(&folder))? })
    }
}

impl WriterMark {
    fn mark(folder: &Path) -> Result<Self, AuditError> {
        sweep(folder);
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| AuditError::Random)?;
        let writer = u32::from_be_bytes(random);
        let path = alive_file(folder, &format!("{writer:08x}"));
        let file = files::append(&path).map_err(at(&path))?;
        file.try_lock().map_err(|_| AuditError::Busy)?;
        Ok(Self { writer, path, _file: file })
    }
}

impl Drop for WriterMark {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the process that opened the record `id` still writes to the log in `folder`.
pub(super) fn is_alive(folder: &Path, id: &str) -> bool {
    let Some(writer) = id.split('-').nth(1).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())) else {
        return false;
    };
    File::open(alive_file(folder, writer)).is_ok_and(|file| is_held(&file))
}

fn alive_file(folder: &Path, writer: &str) -> PathBuf {
    folder.join(format!("writer-{writer}"))
}

/// Removes the marks of processes that are gone.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("writer-"))
    {
        if File::open(entry.path()).is_ok_and(|file| !is_held(&file)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_held(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn is_timeout(waited: Result<(), RecvTimeoutError>) -> bool {
    waited == Err(RecvTimeoutError::Timeout)
}
