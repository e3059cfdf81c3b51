//! The queue of requests that wait for a person. Each request is a file in the home, and its answer another
//! one. The queue polls for the answer while the request waits and, for a short time, after the agent was
//! told to retry. The number of requests is limited, and requests that nobody waits for are removed.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::HeaderName;

use super::approved::{Approval, Approver};
use super::digest::{BoundRequest, Digest};
use super::files::{self, Program, ServerLock, StoredRequest, StoredSecretUse, Verdict};
use crate::identity::Caller;
use crate::policy::access_request::AccessRequest;
use crate::policy::injection::SecretUse;
use crate::policy::location::LocationKind;
use crate::policy::pending_approval::{ApprovalScope, PendingApproval};
use crate::types::name::AgentName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::sync::MutexExt;
use crate::types::target::Target;

/// The limits of waiting requests, of one agent and of all.
const MAX_WAITING_PER_AGENT: usize = 16;
const MAX_WAITING: usize = 64;
/// The limits of lapsed requests, whose agent was told to retry. The oldest is dropped first.
const MAX_LAPSED_PER_AGENT: usize = 16;
const MAX_LAPSED: usize = 64;
/// The limit of answers for a session. The oldest is dropped first.
const MAX_SESSION_ANSWERS: usize = 256;
/// The time for which an answer to a lapsed request counts.
pub(crate) const RETRY_WINDOW: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The limits of the text that a person sees, in bytes: of the body, and of the URL and the headers.
const MAX_SHOWN_BODY: usize = 64 << 10;
const MAX_SHOWN_TEXT: usize = 8 << 10;
/// The characters of ids, without those that look alike.
const ID_ALPHABET: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";

/// The pending requests of one server process.
pub struct ApprovalQueue {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The id and lock of this process, once a request was pending.
    server: Option<(String, ServerLock)>,
    /// Oldest first.
    entries: Vec<Entry>,
    session_answers: VecDeque<SessionAnswer>,
}

/// One request that waits or has lapsed.
struct Entry {
    id: String,
    agent: AgentName,
    digest: Digest,
    scope: ApprovalScope,
    created: Instant,
    is_waiting: bool,
    expires: Instant,
    /// An answer that was not used.
    unused_answer: Option<(Verdict, Approver, Duration)>,
}

/// An answer for the whole session.
struct SessionAnswer {
    scope: ApprovalScope,
    id: String,
    approver: Approver,
    is_approved: bool,
}

/// A request for a person's approval.
pub struct ApprovalRequest<'a> {
    /// The decision of the policy.
    pub pending: &'a PendingApproval,
    /// The caller.
    pub caller: &'a Caller,
    /// The request as policy sees it.
    pub access: &'a AccessRequest<'a>,
    /// The whole request.
    pub bound: &'a BoundRequest<'a>,
}

/// The request is not approved.
pub struct NotApproved {
    /// The answer to the agent.
    pub rejection: Rejection,
    /// A note for the audit record.
    pub note: Option<String>,
}

/// Removes a waiting request from the queue when its future is dropped.
struct WaitGuard<'a> {
    queue: &'a ApprovalQueue,
    id: String,
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.queue.state().remove_where(&self.queue.folder, |entry| entry.id == self.id && entry.is_waiting);
    }
}

impl ApprovalQueue {
    /// A queue with its files in `folder`, which is created with the first request.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, state: Mutex::default() }
    }

    /// Waits until a person answers `request`, or the timeout of its rule.
    pub async fn wait_for_answer(&self, request: &ApprovalRequest<'_>) -> Result<Approval, NotApproved> {
        let (digest, scope) = (request.bound.digest(), request.pending.scope(request.caller, request.access));
        let refused = |slug, message: String| NotApproved {
            rejection: Rejection::new(slug, message).by_rule(&**request.pending.rule()),
            note: None,
        };
        let denied = |id: &str, approver: Approver| NotApproved {
            note: Some(format!("denied by {approver}, approval {id}")),
            ..refused(
                ErrorCode::PolicyApprovalDenied,
                format!("a person denied this request (approval {id})"),
            )
        };
        if let Some(SessionAnswer { id, approver, is_approved, .. }) = self.state().session_answer(&scope) {
            let (id, approver, waited) = (id.clone(), *approver, Duration::ZERO);
            return match is_approved {
                true => Ok(Approval { digest, scope, id, approver, waited, is_for_session: true }),
                false => Err(denied(&id, approver)),
            };
        }
        let opened = self.open(request, digest, &scope);
        let waiting = match opened {
            Ok(id) => WaitGuard { queue: self, id },
            Err(OpenError::AgentLimit) => {
                let message = format!(
                    "{MAX_WAITING_PER_AGENT} requests of agent '{}' wait for a person already: a person sees them with \
                     `agentsecrets approvals`; wait until some are answered",
                    request.pending.agent()
                );
                return Err(refused(ErrorCode::PolicyApprovalRequired, message));
            }
            Err(OpenError::QueueLimit) => {
                let message = format!(
                    "{MAX_WAITING} requests wait for a person already: a person answers them with \
                                       `agentsecrets approvals`"
                );
                return Err(refused(ErrorCode::PolicyApprovalRequired, message));
            }
            Err(OpenError::Io(error)) => {
                tracing::error!(%error, "cannot write the file of a request that needs approval");
                let message = "a person must approve this, and cannot be asked: the folder of approvals cannot \
                               be written";
                return Err(refused(ErrorCode::PolicyApprovalRequired, message.to_owned()));
            }
        };
        let deadline = Instant::now() + request.pending.timeout();
        loop {
            if let Some((verdict, approver, waited)) = self.state().take_answer(&self.folder, &waiting.id) {
                let id = waiting.id.clone();
                return match verdict {
                    Verdict::Once | Verdict::Session => {
                        let is_for_session = verdict == Verdict::Session;
                        Ok(Approval { digest, scope, id, approver, waited, is_for_session })
                    }
                    Verdict::Deny | Verdict::DenySession => Err(denied(&id, approver)),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(POLL_INTERVAL)).await;
        }
        let id = waiting.id.clone();
        self.state().mark_lapsed(&self.folder, &id);
        let message = format!(
            "a person must approve this request and did not within {} seconds: they run `agentsecrets approve \
             {id}`; then the same request passes once, if it comes again within {} minutes",
            request.pending.timeout().as_secs(),
            RETRY_WINDOW.as_secs() / 60
        );
        Err(NotApproved {
            note: Some(format!("approval {id}")),
            ..refused(ErrorCode::PolicyApprovalRequired, message)
        })
    }

    /// Puts back an approval that was not used, for a retry of the request.
    pub fn return_unused(&self, approval: Approval) {
        if approval.is_for_session {
            return;
        }
        let Approval { digest, scope, id, approver, waited, .. } = approval;
        let (agent, now) = (scope.agent().clone(), Instant::now());
        let unused_answer = Some((Verdict::Once, approver, waited));
        let expires = now + RETRY_WINDOW;
        let mut state = self.state();
        state.entries.push(Entry {
            id,
            agent,
            digest,
            scope,
            created: now,
            is_waiting: false,
            expires,
            unused_answer,
        });
        state.evict_lapsed(&self.folder);
    }

    /// Adds `request` and returns its id. A retry of a lapsed request keeps its id.
    fn open(
        &self,
        request: &ApprovalRequest<'_>,
        digest: Digest,
        scope: &ApprovalScope,
    ) -> Result<String, OpenError> {
        let mut state = self.state();
        let (now, agent, wait) = (Instant::now(), request.pending.agent(), request.pending.timeout());
        state.remove_where(&self.folder, |entry| !entry.is_waiting && entry.expires <= now);
        let waiting = |entry: &&Entry| entry.is_waiting;
        if state.entries.iter().filter(waiting).filter(|entry| entry.agent == *agent).count()
            >= MAX_WAITING_PER_AGENT
        {
            return Err(OpenError::AgentLimit);
        }
        if state.entries.iter().filter(waiting).count() >= MAX_WAITING {
            return Err(OpenError::QueueLimit);
        }
        let expires = now + wait + RETRY_WINDOW;
        if state.server.is_none() {
            let server_id = random_id(12)?;
            state.server = Some((server_id.clone(), ServerLock::acquire(&self.folder, &server_id)?));
        }
        let server_id = state.server.as_ref().map(|(id, _)| id.clone()).unwrap_or_default();
        if let Some(entry) =
            state.entries.iter_mut().find(|entry| !entry.is_waiting && entry.digest == digest)
        {
            (entry.is_waiting, entry.expires) = (true, expires);
            let id = entry.id.clone();
            if entry.unused_answer.is_none() {
                files::write_request(
                    &self.folder,
                    &stored_request(request, server_id, id.clone(), digest, scope),
                )?;
            }
            return Ok(id);
        }
        let mut id = random_id(5)?;
        while files::is_taken(&self.folder, &id) {
            id = random_id(5)?;
        }
        files::write_request(&self.folder, &stored_request(request, server_id, id.clone(), digest, scope))?;
        let (agent, scope, created) = (agent.clone(), scope.clone(), now);
        let entry = Entry {
            id: id.clone(),
            agent,
            digest,
            scope,
            created,
            is_waiting: true,
            expires,
            unused_answer: None,
        };
        state.entries.push(entry);
        Ok(id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock_ignoring_poison()
    }
}

impl Drop for ApprovalQueue {
    fn drop(&mut self) {
        self.state().remove_where(&self.folder, |_| true);
    }
}

/// The reason why a request is not added.
enum OpenError {
    AgentLimit,
    QueueLimit,
    Io(io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

impl State {
    fn session_answer(&self, scope: &ApprovalScope) -> Option<&SessionAnswer> {
        self.session_answers.iter().rev().find(|answer| answer.scope == *scope)
    }

    /// Takes the answer to request `id` and removes the request. An answer for the session is kept.
    fn take_answer(&mut self, folder: &Path, id: &str) -> Option<(Verdict, Approver, Duration)> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        let entry = self.entries.get(at)?;
        let answer = entry.unused_answer.or_else(|| {
            let (verdict, approver) = files::read_answer(folder, id, &entry.digest.to_string())?;
            Some((verdict, approver, entry.created.elapsed()))
        })?;
        let entry = self.entries.remove(at);
        files::remove(folder, id);
        let (verdict, approver, _) = answer;
        if matches!(verdict, Verdict::Session | Verdict::DenySession) {
            let is_approved = verdict == Verdict::Session;
            self.session_answers.push_back(SessionAnswer {
                scope: entry.scope,
                id: entry.id,
                approver,
                is_approved,
            });
            if self.session_answers.len() > MAX_SESSION_ANSWERS {
                self.session_answers.pop_front();
            }
        }
        Some(answer)
    }

    /// Marks request `id` as lapsed: nobody waits for it, but its answer counts for a retry.
    fn mark_lapsed(&mut self, folder: &Path, id: &str) {
        for entry in self.entries.iter_mut().filter(|entry| entry.id == id) {
            entry.is_waiting = false;
            entry.expires = Instant::now() + RETRY_WINDOW;
        }
        self.evict_lapsed(folder);
    }

    fn evict_lapsed(&mut self, folder: &Path) {
        let mut counts = std::collections::HashMap::<AgentName, usize>::new();
        let mut lapsed = 0;
        let mut evicted = Vec::new();
        for entry in self.entries.iter().rev().filter(|entry| !entry.is_waiting) {
            let own = counts.entry(entry.agent.clone()).or_default();
            if *own == MAX_LAPSED_PER_AGENT || lapsed == MAX_LAPSED {
                evicted.push(entry.id.clone());
            } else {
                (*own, lapsed) = (*own + 1, lapsed + 1);
            }
        }
        self.remove_where(folder, |entry| evicted.contains(&entry.id));
    }

    fn remove_where(&mut self, folder: &Path, predicate: impl Fn(&Entry) -> bool) {
        self.entries.retain(|entry| {
            let is_match = predicate(entry);
            if is_match {
                files::remove(folder, &entry.id);
            }
            !is_match
        });
    }
}

fn stored_request(
    request: &ApprovalRequest<'_>,
    server: String,
    id: String,
    digest: Digest,
    scope: &ApprovalScope,
) -> StoredRequest {
    let ApprovalRequest { pending, caller, access, bound } = request;
    let (now, process) = (files::unix_seconds(), &caller.process);
    let waits_until = now + i64::try_from(pending.timeout().as_secs()).unwrap_or(0);
    let (body, is_whole) = text(bound.body, MAX_SHOWN_BODY);
    let mut left = MAX_SHOWN_TEXT;
    let headers = bound.covered_headers().into_iter().map_while(|(name, value)| {
        // Credentials that the agent itself has are not written to disk.
        let is_plain =
            name.parse().is_ok_and(|name: HeaderName| LocationKind::of_header(&name) == LocationKind::Header);
        let value = if is_plain { text(value, MAX_SHOWN_TEXT).0 } else { "…".to_owned() };
        left = left.checked_sub(name.len() + value.len())?;
        Some((name.to_owned(), value))
    });
    StoredRequest {
        id,
        server,
        digest: digest.to_string(),
        created: jiff::Timestamp::now().to_string(),
        waits_until,
        expires: waits_until + RETRY_WINDOW.as_secs() as i64,
        agent: pending.agent().to_string(),
        session: caller.isolation().to_string(),
        rule: pending.rule().to_string(),
        program: Program {
            pid: process.pid,
            exe: process.exe.to_string_lossy().into_owned(),
            sha256: process.sha256.clone(),
            uid: process.uid,
            cgroup: process.cgroup.clone(),
        },
        method: access.method.to_string(),
        url: text(url(access.target, bound.path, bound.query).as_bytes(), MAX_SHOWN_TEXT).0,
        path: text(bound.path.as_bytes(), MAX_SHOWN_TEXT).0,
        headers: headers.collect(),
        secrets: pending.secret_uses().iter().map(stored_secret_use).collect(),
        websocket: access.websocket,
        body_bytes: bound.body.len() as u64,
        body,
        body_is_partial: !is_whole,
        scope: scope.to_string(),
    }
}

fn url(target: &Target, path: &str, query: Option<&str>) -> String {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{target}{path}{query}")
}

fn stored_secret_use(secret_use: &SecretUse) -> StoredSecretUse {
    let place = secret_use.style.injection_point().map(|point| point.kind.as_str().to_owned());
    StoredSecretUse { name: secret_use.name.clone(), place: place.unwrap_or_default() }
}

/// The first `max` of `bytes` as text, and whether that is all of them.
fn text(bytes: &[u8], max: usize) -> (String, bool) {
    let shown = bytes.get(..max).unwrap_or(bytes);
    let text = String::from_utf8_lossy(shown);
    let is_whole = shown.len() == bytes.len() && matches!(text, std::borrow::Cow::Borrowed(_));
    (text.into_owned(), is_whole)
}

fn random_id(length: usize) -> io::Result<String> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    let letter = |byte: u8| ID_ALPHABET.get(usize::from(byte) % ID_ALPHABET.len()).copied().unwrap_or(b'a');
    Ok(bytes.into_iter().map(|byte| char::from(letter(byte))).collect())
}
