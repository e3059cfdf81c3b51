//! Where held requests wait for a person. Each is a file in the home, and its answer another one, which is
//! looked for while the request waits and, for a short while, after it was told to come again. How many wait
//! is bounded; what nobody waits for any longer is withdrawn.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderName;

use super::{Approval, By, Digest, Held, Same, Seen};
use crate::approval::entry::{self, Program, Question, Serving, Spent, Verdict};
use crate::identity::Caller;
use crate::policy::access_request::Ask;
use crate::policy::grant::Spend;
use crate::policy::location::Place;
use crate::types::name::AgentName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Target;

/// How many requests of one agent, and of all, wait at once.
const MOST_OF_ONE: usize = 16;
const MOST: usize = 64;
/// How many more are remembered that were told to come again, of one agent and of all; the oldest goes.
const MOST_LAPSED_OF_ONE: usize = 16;
const MOST_LAPSED: usize = 64;
/// How many answers stand for a session; the oldest goes.
const MOST_STANDING: usize = 256;
/// For how long an answer counts that comes when the agent was told to come again.
pub const KEPT: Duration = Duration::from_secs(300);
/// How often an answer is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How much of a body, a URL and the headers a person is shown, in bytes.
const MOST_BODY: usize = 64 << 10;
const MOST_TEXT: usize = 8 << 10;
/// What an id is made of: nothing that looks like something else.
const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";

/// The held requests of one serving process.
pub struct Desk {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Its name and its mark, once something was held.
    serving: Option<(String, Serving)>,
    /// The oldest first.
    cases: Vec<Case>,
    standing: VecDeque<Standing>,
}

/// One request that waits, or that was told to come again.
struct Case {
    id: String,
    agent: AgentName,
    digest: Digest,
    same: Same,
    asked: Instant,
    is_waiting: bool,
    counts_until: Instant,
    /// An answer that was not used.
    answered: Option<(Verdict, By, Duration)>,
}

/// An answer for a session.
struct Standing {
    same: Same,
    id: String,
    by: By,
    is_yes: bool,
}

/// What is put before a person.
pub struct Matter<'a> {
    /// What `decide` held.
    pub held: &'a Held,
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub ask: &'a Ask<'a>,
    /// The whole of it.
    pub seen: &'a Seen<'a>,
}

/// No approval.
pub struct NotApproved {
    /// What the agent is told.
    pub refusal: Rejection,
    /// What the record says.
    pub note: Option<String>,
}

/// A case of which somebody waits for the end: where that is given up, it is withdrawn.
struct Waiting<'a> {
    desk: &'a Desk,
    id: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.desk.state().withdraw(&self.desk.folder, |case| case.id == self.id && case.is_waiting);
    }
}

impl Desk {
    /// The desk whose files are in `folder`. Nothing is made there before something is held.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder, state: Mutex::default() }
    }

    /// Waits until a person has answered `matter`, as long as its rule says.
    pub async fn ask(&self, matter: &Matter<'_>) -> Result<Approval, NotApproved> {
        let (digest, same) = (matter.seen.digest(), matter.held.same(matter.caller, matter.ask));
        let refused = |slug, message: String| NotApproved {
            refusal: Rejection::new(slug, &matter.ask.target.host, message).by_rule(&**matter.held.rule()),
            note: None,
        };
        let denied = |id: &str, by: By| NotApproved {
            note: Some(format!("denied by {by}, approval {id}")),
            ..refused(
                ErrorCode::PolicyApprovalDenied,
                format!("a person denied this request (approval {id})"),
            )
        };
        if let Some(Standing { id, by, is_yes, .. }) = self.state().standing(&same) {
            let (id, by, waited) = (id.clone(), *by, Duration::ZERO);
            return match is_yes {
                true => Ok(Approval { digest, same, id, by, waited, stands: true }),
                false => Err(denied(&id, by)),
            };
        }
        let opened = self.open(matter, digest, &same);
        let waiting = match opened {
            Ok(id) => Waiting { desk: self, id },
            Err(Full::Agent) => {
                let message = format!(
                    "{MOST_OF_ONE} requests of agent '{}' wait for a person already: a person sees them with \
                     `agentsecrets approvals`; wait until some are answered",
                    matter.held.agent()
                );
                return Err(refused(ErrorCode::PolicyApprovalRequired, message));
            }
            Err(Full::Desk) => {
                let message = format!(
                    "{MOST} requests wait for a person already: a person answers them with \
                                       `agentsecrets approvals`"
                );
                return Err(refused(ErrorCode::PolicyApprovalRequired, message));
            }
            Err(Full::Broken(error)) => {
                tracing::error!(%error, "a held request cannot be put before a person");
                let message = "a person must approve this, and cannot be asked: the folder of approvals cannot \
                               be written";
                return Err(refused(ErrorCode::PolicyApprovalRequired, message.to_owned()));
            }
        };
        let deadline = Instant::now() + matter.held.wait();
        loop {
            if let Some((verdict, by, waited)) = self.state().take_answer(&self.folder, &waiting.id) {
                let id = waiting.id.clone();
                return match verdict {
                    Verdict::Once | Verdict::Session => {
                        let stands = verdict == Verdict::Session;
                        Ok(Approval { digest, same, id, by, waited, stands })
                    }
                    Verdict::Deny | Verdict::DenySession => Err(denied(&id, by)),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
        let id = waiting.id.clone();
        self.state().lapse(&self.folder, &id);
        let message = format!(
            "a person must approve this request and did not within {} seconds: they run `agentsecrets approve \
             {id}`; then the same request passes once, if it comes again within {} minutes",
            matter.held.wait().as_secs(),
            KEPT.as_secs() / 60
        );
        Err(NotApproved {
            note: Some(format!("approval {id}")),
            ..refused(ErrorCode::PolicyApprovalRequired, message)
        })
    }

    /// Keeps an approval that was not used, for when the request comes again.
    pub fn keep(&self, approval: Approval) {
        if approval.stands {
            return;
        }
        let Approval { digest, same, id, by, waited, .. } = approval;
        let (agent, now) = (same.agent.clone(), Instant::now());
        let answered = Some((Verdict::Once, by, waited));
        let counts_until = now + KEPT;
        let mut state = self.state();
        state.cases.push(Case {
            id,
            agent,
            digest,
            same,
            asked: now,
            is_waiting: false,
            counts_until,
            answered,
        });
        state.make_room(&self.folder);
    }

    /// The id under which `matter` waits: that under which it waited before, or a new one.
    fn open(&self, matter: &Matter<'_>, digest: Digest, same: &Same) -> Result<String, Full> {
        let mut state = self.state();
        let (now, agent, wait) = (Instant::now(), matter.held.agent(), matter.held.wait());
        state.withdraw(&self.folder, |case| !case.is_waiting && case.counts_until <= now);
        let waiting = |case: &&Case| case.is_waiting;
        if state.cases.iter().filter(waiting).filter(|case| case.agent == *agent).count() >= MOST_OF_ONE {
            return Err(Full::Agent);
        }
        if state.cases.iter().filter(waiting).count() >= MOST {
            return Err(Full::Desk);
        }
        let counts_until = now + wait + KEPT;
        if state.serving.is_none() {
            let desk = random(12)?;
            state.serving = Some((desk.clone(), Serving::begin(&self.folder, &desk)?));
        }
        let desk = state.serving.as_ref().map(|(desk, _)| desk.clone()).unwrap_or_default();
        if let Some(case) = state.cases.iter_mut().find(|case| !case.is_waiting && case.digest == digest) {
            (case.is_waiting, case.counts_until) = (true, counts_until);
            let id = case.id.clone();
            if case.answered.is_none() {
                entry::ask(&self.folder, &question(matter, desk, id.clone(), digest, same))?;
            }
            return Ok(id);
        }
        let mut id = random(5)?;
        while entry::is_taken(&self.folder, &id) {
            id = random(5)?;
        }
        entry::ask(&self.folder, &question(matter, desk, id.clone(), digest, same))?;
        let (agent, same, asked) = (agent.clone(), same.clone(), now);
        let case = Case {
            id: id.clone(),
            agent,
            digest,
            same,
            asked,
            is_waiting: true,
            counts_until,
            answered: None,
        };
        state.cases.push(case);
        Ok(id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.state().withdraw(&self.folder, |_| true);
    }
}

/// Why a request is not put before a person.
enum Full {
    Agent,
    Desk,
    Broken(io::Error),
}

impl From<io::Error> for Full {
    fn from(error: io::Error) -> Self {
        Full::Broken(error)
    }
}

impl State {
    fn standing(&self, same: &Same) -> Option<&Standing> {
        self.standing.iter().rev().find(|standing| standing.same == *same)
    }

    /// The answer to the case `id`, which it ends. One for the session stands from here on.
    fn take_answer(&mut self, folder: &Path, id: &str) -> Option<(Verdict, By, Duration)> {
        let at = self.cases.iter().position(|case| case.id == id)?;
        let case = self.cases.get(at)?;
        let answer = case.answered.or_else(|| {
            let (verdict, by) = entry::answered(folder, id, &case.digest.to_string())?;
            Some((verdict, by, case.asked.elapsed()))
        })?;
        let case = self.cases.remove(at);
        entry::remove(folder, id);
        let (verdict, by, _) = answer;
        if matches!(verdict, Verdict::Session | Verdict::DenySession) {
            let is_yes = verdict == Verdict::Session;
            self.standing.push_back(Standing { same: case.same, id: case.id, by, is_yes });
            if self.standing.len() > MOST_STANDING {
                self.standing.pop_front();
            }
        }
        Some(answer)
    }

    /// Nobody waits for the case `id` any longer, but its answer counts when it comes again.
    fn lapse(&mut self, folder: &Path, id: &str) {
        for case in self.cases.iter_mut().filter(|case| case.id == id) {
            case.is_waiting = false;
            case.counts_until = Instant::now() + KEPT;
        }
        self.make_room(folder);
    }

    fn make_room(&mut self, folder: &Path) {
        let mut counts = std::collections::HashMap::<AgentName, usize>::new();
        let mut lapsed = 0;
        let mut gone = Vec::new();
        for case in self.cases.iter().rev().filter(|case| !case.is_waiting) {
            let own = counts.entry(case.agent.clone()).or_default();
            if *own == MOST_LAPSED_OF_ONE || lapsed == MOST_LAPSED {
                gone.push(case.id.clone());
            } else {
                (*own, lapsed) = (*own + 1, lapsed + 1);
            }
        }
        self.withdraw(folder, |case| gone.contains(&case.id));
    }

    fn withdraw(&mut self, folder: &Path, is_over: impl Fn(&Case) -> bool) {
        self.cases.retain(|case| {
            let over = is_over(case);
            if over {
                entry::remove(folder, &case.id);
            }
            !over
        });
    }
}

fn question(matter: &Matter<'_>, desk: String, id: String, digest: Digest, same: &Same) -> Question {
    let Matter { held, caller, ask, seen } = matter;
    let (now, process) = (entry::seconds(), &caller.process);
    let waits_until = now + i64::try_from(held.wait().as_secs()).unwrap_or(0);
    let (body, is_whole) = text(seen.body, MOST_BODY);
    let mut left = MOST_TEXT;
    let headers = seen.bound_headers().into_iter().map_while(|(name, value)| {
        // What an agent holds of its own is not ours to write down.
        let is_plain = name.parse().is_ok_and(|name: HeaderName| Place::of_header(&name) == Place::Header);
        let value = if is_plain { text(value, MOST_TEXT).0 } else { "…".to_owned() };
        left = left.checked_sub(name.len() + value.len())?;
        Some((name.to_owned(), value))
    });
    Question {
        id,
        desk,
        digest: digest.to_string(),
        asked: jiff::Timestamp::now().to_string(),
        waits_until,
        counts_until: waits_until + KEPT.as_secs() as i64,
        agent: held.agent().to_string(),
        session: caller.isolation().to_string(),
        rule: held.rule().to_string(),
        program: Program {
            pid: process.pid,
            exe: process.exe.to_string_lossy().into_owned(),
            sha256: process.sha256.clone(),
            uid: process.uid,
            cgroup: process.cgroup.clone(),
        },
        method: ask.method.to_string(),
        url: text(url(ask.target, seen.path, seen.query).as_bytes(), MOST_TEXT).0,
        path: text(seen.path.as_bytes(), MOST_TEXT).0,
        headers: headers.collect(),
        secrets: held.spends().iter().map(spent).collect(),
        websocket: ask.websocket,
        body_bytes: seen.body.len() as u64,
        body,
        body_is_partial: !is_whole,
        same: same.to_string(),
    }
}

fn url(target: &Target, path: &str, query: Option<&str>) -> String {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{target}{path}{query}")
}

fn spent(spend: &Spend) -> Spent {
    let place = spend.style.spot().map(|spot| spot.place.as_str().to_owned());
    Spent { name: spend.name.clone(), place: place.unwrap_or_default() }
}

/// At most `most` of `bytes` as text, and whether that says all of them.
fn text(bytes: &[u8], most: usize) -> (String, bool) {
    let shown = bytes.get(..most).unwrap_or(bytes);
    let text = String::from_utf8_lossy(shown);
    let is_whole = shown.len() == bytes.len() && matches!(text, std::borrow::Cow::Borrowed(_));
    (text.into_owned(), is_whole)
}

fn random(letters: usize) -> io::Result<String> {
    let mut bytes = vec![0; letters];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    let letter = |byte: u8| LETTERS.get(usize::from(byte) % LETTERS.len()).copied().unwrap_or(b'a');
    Ok(bytes.into_iter().map(|byte| char::from(letter(byte))).collect())
}
