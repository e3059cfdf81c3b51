//! Keeps the agents and sessions files current. If one is unreadable, requests that depend on it are denied.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::agents::{AgentEntry as Token, AgentIndex, AgentsFile};
use super::clock::ClockReading;
use super::registry::RegistryError;
use super::sessions::{Entry, Holder, SessionIndex, SessionsFile};
use crate::authz::revocation::{RevocationGuard, RevocationSource, Revocations};
use crate::authz::session_uses;
use crate::authz::token;
use crate::identity::{Caller, IdentityError};
use crate::policy::access_request::AccessRequest;
use crate::policy::injection::SecretUse;
use crate::sys::files::private_folder;
use crate::sys::home::Home;
use crate::sys::watched_file::WatchedFile;
use crate::types::name::{AgentName, Environment, Project};
use crate::types::presented::{self, PresentedCredentials};
use crate::types::rejection::{ErrorCode, Rejection};

/// Interval at which held sessions and tokens are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The files of one home, and for which project and environment they are asked.
pub(super) struct AuthzState {
    agents: WatchedFile<AgentsFile>,
    sessions: WatchedFile<SessionsFile>,
    home: Home,
    project: Project,
    environment: Environment,
    /// The session of the run that is served: without it nobody is.
    run: Option<Arc<str>>,
    holds: Revocations,
}

/// A caller with everything that it was given.
pub struct Admitted {
    /// The caller.
    pub caller: Caller,
    /// Ends with the session or token that admitted the caller.
    pub held: RevocationGuard,
}

/// Why a caller is not let in.
#[derive(Debug)]
pub struct Refused {
    /// The response to the caller.
    pub refusal: Rejection,
    /// The token that it showed, if that is one of ours.
    pub token: Option<Arc<str>>,
    /// The session that it would have been in.
    pub session: Option<Arc<str>>,
}

impl Refused {
    fn new(refusal: Rejection) -> Box<Self> {
        Box::new(Self { refusal, token: None, session: None })
    }

    pub(super) fn denied(message: impl Into<String>) -> Box<Self> {
        Self::new(Rejection::new(ErrorCode::CapabilityDenied, message))
    }

    fn of_token(mut self: Box<Self>, id: &Arc<str>) -> Box<Self> {
        self.token = Some(id.clone());
        self
    }

    fn of_session(mut self: Box<Self>, id: &Arc<str>) -> Box<Self> {
        self.session = Some(id.clone());
        self
    }
}

impl AuthzState {
    /// Reads the files of `home` and follows them.
    pub(super) fn open(
        home: &Home,
        project: &Project,
        environment: &Environment,
        run: Option<Arc<str>>,
    ) -> Result<Arc<Self>, RegistryError> {
        let (agents, sessions) = (home.agents(), home.sessions());
        // A folder that is not there cannot be watched.
        if let Err(error) = private_folder(&home.capabilities()) {
            tracing::warn!(%error, "the folder of agents and sessions cannot be made");
        }
        let state = Arc::new(Self {
            agents: WatchedFile::open(&agents, AgentsFile(agents.clone()))?,
            sessions: WatchedFile::open(&sessions, SessionsFile(sessions.clone()))?,
            home: home.clone(),
            project: project.clone(),
            environment: environment.clone(),
            run,
            holds: Revocations::default(),
        });
        let weak = Arc::downgrade(&state);
        std::thread::Builder::new().name("sessions".to_owned()).spawn(move || poll_revocations(&weak))?;
        Ok(state)
    }

    /// `agents` and `sessions`, which stay.
    pub(super) fn fixed(
        home: &Home,
        agents: super::agents::Agents,
        sessions: super::sessions::Sessions,
    ) -> Result<Self, RegistryError> {
        let now = ClockReading::read();
        let session_index = SessionIndex::new(sessions, None, now);
        let invalid = |what| RegistryError::Invalid { path: home.sessions(), line: 0, what };
        Ok(Self {
            agents: WatchedFile::fixed(AgentIndex::new(agents, None, now)),
            sessions: WatchedFile::fixed(session_index.map_err(invalid)?),
            home: home.clone(),
            project: Project::default(),
            environment: Environment::default(),
            run: None,
            holds: Revocations::default(),
        })
    }

    fn agents(&self) -> Result<Arc<AgentIndex>, String> {
        let mistake = self.agents.last_error();
        mistake
            .map_or_else(|| Ok(self.agents.get()), |error| Err(format!("the agents cannot be read: {error}")))
    }

    fn sessions(&self) -> Result<Arc<SessionIndex>, String> {
        let mistake = self.sessions.last_error();
        mistake.map_or_else(
            || Ok(self.sessions.get()),
            |error| Err(format!("the sessions cannot be read: {error}")),
        )
    }

    /// `known` with what it was given, and what it shows.
    pub(super) fn admit(
        &self,
        known: &Result<Caller, IdentityError>,
        shown: &PresentedCredentials,
    ) -> Result<Admitted, Box<Refused>> {
        if shown.is_bad {
            return Err(Refused::denied("what was shown is no token of AgentSecrets, or more than one"));
        }
        let now = ClockReading::read();
        let session_index = self.sessions().map_err(Refused::denied)?;
        let session =
            shown.session.as_ref().map(|text| self.session_of(&session_index, text, now)).transpose()?;
        let (caller, agent, token) = match &shown.agent {
            None => (authenticate(known, session.is_some())?, None, None),
            Some(text) => {
                let agent_index = self.agents().map_err(Refused::denied)?;
                let token = self.token_of(&agent_index, text, now)?;
                let caller = authenticate(known, true).map_err(|refused| refused.of_token(&token.id))?;
                (caller, Some(token.agent.clone()), Some(token.id.clone()))
            }
        };
        let mut admitted = self
            .attach(&session_index, caller, session, agent, token.as_ref(), shown, now)
            .map_err(|refused| match &token {
                Some(id) => refused.of_token(id),
                None => refused,
            })?;
        let sessions = admitted.caller.attributes.sessions.iter().cloned().map(RevocationSource::Session);
        admitted.held = self.holds.hold(sessions.chain(token.clone().map(RevocationSource::Token)));
        admitted.caller.attributes.token = token;
        Ok(admitted)
    }

    /// Puts `caller` into its sessions, of which `session` is the one whose token it showed.
    #[expect(clippy::too_many_arguments, reason = "one step of `admit`, which has found all of them")]
    fn attach(
        &self,
        session_index: &SessionIndex,
        mut caller: Caller,
        session: Option<Arc<Entry>>,
        agent: Option<AgentName>,
        token: Option<&Arc<str>>,
        shown: &PresentedCredentials,
        now: ClockReading,
    ) -> Result<Admitted, Box<Refused>> {
        if let Some(run) = &self.run
            && session_index.get(run).is_none()
        {
            return Err(Refused::denied(format!("session {run} has ended: it is not known any longer")));
        }
        if let Some(agent) = agent {
            act_as(&mut caller, &agent, "the token")?;
        }
        if let (Some(name), true) = (&shown.name, token.is_some() || session.is_some()) {
            let name: AgentName = name.parse().map_err(|_| Refused::denied("there is no such agent"))?;
            act_as(&mut caller, &name, "what was said")?;
        }
        let own = if caller.attributes.is_issued { Vec::new() } else { session_index.of(&caller) };
        let mut live: Vec<Arc<Entry>> = Vec::with_capacity(own.len());
        let mut ended = None;
        for entry in own.into_iter().chain(session) {
            match session_index.over(&entry, now).or_else(|| self.used_up(&entry)) {
                None if live.iter().all(|other| other.id != entry.id) => live.push(entry),
                None => {}
                // What a run started is its session's, whatever else was given to it.
                Some(reason) if entry.id == caller.session => return Err(over(&entry, reason)),
                Some(reason) => ended = Some(over(&entry, reason)),
            }
        }
        match ended {
            Some(refused) if live.iter().all(|entry| entry.id == caller.session) => return Err(refused),
            _ => {}
        }
        for entry in &live {
            if let Some(agent) = &entry.session.agent {
                act_as(&mut caller, agent, "the session").map_err(|refused| refused.of_session(&entry.id))?;
            }
        }
        if caller.session.is_empty()
            && let Some(newest) = live.iter().max_by_key(|entry| entry.session.started)
        {
            caller.session = newest.id.clone();
        }
        caller.attributes.sessions = live.into_iter().map(|entry| entry.id.clone()).collect();
        Ok(Admitted { caller, held: RevocationGuard::default() })
    }

    /// The good token that `text` is.
    fn token_of<'r>(
        &self,
        agent_index: &'r AgentIndex,
        text: &str,
        now: ClockReading,
    ) -> Result<&'r Token, Box<Refused>> {
        let token = token::id(text, presented::AGENT).and_then(|id| agent_index.token(id));
        // Which part of it is wrong is nobody's business.
        let token = token
            .filter(|token| token.digest.is_of(text))
            .ok_or_else(|| Refused::denied("this is no agent token that was issued here"))?;
        let id = &token.id;
        let denied = |message: String| Err(Refused::denied(message).of_token(id));
        if let Some(refusal) = token_over(token, now) {
            return Err(Refused::new(refusal).of_token(id));
        }
        if let Some(project) = token.project.as_ref().filter(|project| **project != self.project) {
            return denied(format!(
                "token {id} is for the project '{project}', and this is '{}'",
                self.project
            ));
        }
        if let Some(environment) = token.environment.as_ref().filter(|own| **own != self.environment) {
            let here = &self.environment;
            return denied(format!(
                "token {id} is for the environment '{environment}', and this is '{here}'"
            ));
        }
        Ok(token)
    }

    /// The live session whose token `text` is.
    fn session_of(
        &self,
        session_index: &SessionIndex,
        text: &str,
        now: ClockReading,
    ) -> Result<Arc<Entry>, Box<Refused>> {
        let entry = token::id(text, presented::SESSION)
            .and_then(|id| session_index.get(id))
            .filter(|entry| matches!(&entry.session.who, Holder::Token { sha256 } if sha256.is_of(text)));
        let entry = entry.ok_or_else(|| Refused::denied("this is no session token that was issued here"))?;
        match session_index.over(entry, now).or_else(|| self.used_up(entry)) {
            Some(reason) => Err(over(entry, reason)),
            None => Ok(entry.clone()),
        }
    }

    fn used_up(&self, entry: &Entry) -> Option<&'static str> {
        let most = entry.session.uses?;
        match session_uses::used(&self.home.session_uses(&entry.id)) {
            Ok(used) if used < most => None,
            Ok(_) => Some("it was used as often as it may be"),
            Err(_) => Some("its uses cannot be counted"),
        }
    }

    /// The capability that is missing for this request, if one is.
    pub(super) fn refusal(
        &self,
        caller: &Caller,
        ask: &AccessRequest<'_>,
        spends: &[SecretUse],
    ) -> Option<Rejection> {
        let denied = |message: String| Some(Rejection::new(ErrorCode::CapabilityDenied, message));
        if let (Some(agent), false) = (&caller.agent, spends.is_empty()) {
            let agent_index = match self.agents() {
                Ok(agent_index) => agent_index,
                Err(reason) => return denied(reason),
            };
            if let Some(spend) = spends.iter().find(|spend| !agent_index.allows(agent, &spend.name)) {
                return denied(format!(
                    "agent '{agent}' was not given '{}' (see `agent policy get`)",
                    spend.name
                ));
            }
        }
        if caller.attributes.sessions.is_empty() {
            return None;
        }
        let session_index = match self.sessions() {
            Ok(session_index) => session_index,
            Err(reason) => return denied(reason),
        };
        for id in &caller.attributes.sessions {
            let Some(entry) = session_index.get(id) else { return denied(format!("session {id} has ended")) };
            let bounded = |what: String| denied(format!("session {id} does not include {what}"));
            if entry.hosts.as_ref().is_some_and(|hosts| !hosts.covers(&ask.target.host)) {
                return bounded(format!("the host '{}'", ask.target.host));
            }
            let methods = entry.session.methods.as_ref();
            if methods.is_some_and(|methods| methods.iter().all(|method| method != ask.method.as_str())) {
                return bounded(format!("the method {}", ask.method));
            }
            let outside = |secrets: &std::collections::HashSet<_>| {
                spends.iter().find(|spend| !secrets.contains(&spend.name)).map(|spend| spend.name.clone())
            };
            if let Some(name) = entry.secrets.as_ref().and_then(outside) {
                return bounded(format!("the secret '{name}'"));
            }
        }
        None
    }

    /// Counts a use of every session of `caller` whose uses are counted. Blocks.
    pub(super) fn charge(&self, caller: &Caller) -> Result<(), Rejection> {
        let denied = |message: String| Rejection::new(ErrorCode::CapabilityDenied, message);
        for id in &caller.attributes.sessions {
            let session_index = self.sessions().map_err(denied)?;
            let entry = session_index.get(id).ok_or_else(|| denied(format!("session {id} has ended")))?;
            let Some(most) = entry.session.uses else { continue };
            match session_uses::charge(&self.home.session_uses(id), most) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(denied(format!("session {id} has ended: it was used as often as it may be")));
                }
                Err(error) => {
                    return Err(denied(format!("the uses of session {id} cannot be counted: {error}")));
                }
            }
        }
        Ok(())
    }

    /// Whether a use of one of the sessions of `caller` is counted.
    pub(super) fn counts(&self, caller: &Caller) -> bool {
        let session_index = self.sessions.get();
        let counts = |id: &Arc<str>| session_index.get(id).is_none_or(|entry| entry.session.uses.is_some());
        caller.attributes.sessions.iter().any(counts)
    }

    /// Whether the session of the run that is served is over, and why.
    pub(super) fn run_end_reason(&self) -> Option<String> {
        // A file that cannot be read refuses everything, and does not say that the run is to end.
        self.sessions().ok()?;
        let reason = self.over(&RevocationSource::Session(self.run.clone()?))?;
        // Requests learn the reason before the caller ends the run: a program that is ended closes its connections.
        self.holds.poll(|right| self.over(right));
        Some(reason)
    }

    /// Why a right is over.
    fn over(&self, right: &RevocationSource) -> Option<String> {
        let now = ClockReading::read();
        match right {
            RevocationSource::Session(id) => {
                let reason = match self.sessions() {
                    Ok(session_index) => session_index
                        .get(id)
                        .map_or(Some("it is not known any longer"), |entry| session_index.over(entry, now))?
                        .to_owned(),
                    Err(reason) => reason,
                };
                Some(format!("session_ended: session {id}: {reason}"))
            }
            RevocationSource::Token(id) => match self.agents() {
                Ok(agent_index) => match agent_index.token(id) {
                    Some(token) => token_over(token, now)
                        .map(|refusal| format!("{}: {}", refusal.code.as_str(), refusal.message)),
                    None => Some(format!("token_revoked: token {id} is not known any longer")),
                },
                Err(reason) => Some(format!("capability_denied: {reason}")),
            },
        }
    }
}

/// `known`, or whom a token makes known where the system cannot.
fn authenticate(known: &Result<Caller, IdentityError>, by_token: bool) -> Result<Caller, Box<Refused>> {
    match known {
        Ok(caller) => Ok(caller.clone()),
        Err(IdentityError::Nobody | IdentityError::Unsupported) if by_token => Ok(Caller::issued()),
        Err(error) => Err(Refused::denied(format!("the caller cannot be proven: {error}"))),
    }
}

/// Lets `caller` act as `agent`, as `what` says, unless it is another one.
fn act_as(caller: &mut Caller, agent: &AgentName, what: &str) -> Result<(), Box<Refused>> {
    match &caller.agent {
        Some(own) if own != agent => {
            Err(Refused::denied(format!("{what} is agent '{agent}''s, and the caller is agent '{own}'")))
        }
        _ => {
            caller.agent = Some(agent.clone());
            Ok(())
        }
    }
}

fn over(entry: &Entry, reason: &str) -> Box<Refused> {
    Refused::denied(format!("session {} has ended: {reason}", entry.id)).of_session(&entry.id)
}

fn token_over(token: &Token, now: ClockReading) -> Option<Rejection> {
    let id = &token.id;
    if token.is_revoked {
        return Some(Rejection::new(ErrorCode::TokenRevoked, format!("token {id} was revoked")));
    }
    let is_over = token.lease.is_some_and(|lease| lease.is_over(now));
    is_over.then(|| Rejection::new(ErrorCode::CapabilityDenied, format!("token {id} has expired")))
}

fn poll_revocations(state: &Weak<AuthzState>) {
    while let Some(state) = state.upgrade() {
        state.holds.poll(|right| state.over(right));
        drop(state);
        std::thread::sleep(POLL_INTERVAL);
    }
}
