//! Sessions: who may act, with which secrets, toward which hosts, by which methods, how often, until when. One
//! that ended is kept for as long as those are there whom it was for: what it bounded is not free of it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clock::{self, ClockReading, Lease};
use super::registry::{self, RegistryContent, RegistryError, VERSION};
use super::token::{Digest, is_id};
use crate::authz::session_uses;
use crate::identity::ancestry::{self, Ancestry, ProcessStart};
use crate::identity::{Caller, Process};
use crate::policy::HostList;
use crate::sys::home::Home;
use crate::sys::watched_file::FileSource;
use crate::types::name::{AgentName, SecretName};

/// Ended sessions of tokens stay listed for this time.
const ENDED_RETENTION: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    version: u32,
    /// All of them, in the order in which they were started.
    pub sessions: Vec<Session>,
}

/// One session. What is `None` is not bounded by it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Whom it is for.
    pub who: Holder,
    /// The agent entry that they act under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// The secrets that they may spend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretName>>,
    /// The hosts that they may reach, each as in a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// The methods that they may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// The number of requests that may spend a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// When it began.
    pub started: Timestamp,
    /// When it ends; none for when those are gone whom it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The boot of the machine that it belongs to: with the next one it is over.
    pub boot: String,
    /// Seconds between the machine's start and the session's start.
    pub uptime: u64,
    /// When somebody ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}

/// Whom a session is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Holder {
    /// A process and those that descend from it.
    Tree {
        /// Its id.
        pid: u32,
        /// When it started, in clock ticks since boot.
        start_time: u64,
        /// The container that it is in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
    },
    /// Processes in a cgroup or below it.
    Cgroup {
        /// Its path in the unified hierarchy.
        path: String,
    },
    /// Processes in a container.
    Container {
        /// Its whole id.
        id: String,
    },
    /// A command that `run` started, with all that it starts.
    Run {
        /// Its cgroup.
        cgroup: String,
    },
    /// Whoever shows a token.
    Token {
        /// The digest of the token.
        sha256: Digest,
    },
}

impl Default for Sessions {
    fn default() -> Self {
        Self { version: VERSION, sessions: Vec::new() }
    }
}

impl RegistryContent for Sessions {
    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self) -> Result<(), String> {
        let mut ids = HashSet::new();
        for session in &self.sessions {
            // The id is part of a file's name.
            if !is_id(&session.id) || !ids.insert(&session.id) {
                return Err("a session has no id of its own".to_owned());
            }
            session.check().map_err(|reason| format!("session {}: {reason}", session.id))?;
        }
        Ok(())
    }
}

impl Sessions {
    /// Forgets those whom nobody is left to be bounded by: of an earlier boot, or for what is gone.
    pub fn remove_expired(&mut self, home: &Home) {
        let boot = clock::boot();
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sessions)
            .into_iter()
            .partition(|session| session.boot == boot && session.who.is_alive() && !session.is_long_over());
        self.sessions = kept;
        for session in gone.into_iter().filter(|session| session.uses.is_some()) {
            let _ = std::fs::remove_file(home.session_uses(&session.id));
        }
    }
}

impl Session {
    /// One that begins now, and bounds nothing yet.
    pub fn begin(id: String, who: Holder, agent: Option<AgentName>, ttl: Option<Duration>) -> Self {
        let started = Timestamp::now();
        let expires = ttl.map(|ttl| started.saturating_add(ttl).unwrap_or(Timestamp::MAX));
        Self {
            id,
            who,
            agent,
            secrets: None,
            hosts: None,
            methods: None,
            uses: None,
            started,
            expires,
            boot: clock::boot(),
            uptime: clock::uptime(),
            ended: None,
        }
    }

    /// Whether it is for a token that has not been good for so long that nobody need be told why.
    fn is_long_over(&self) -> bool {
        let over = [self.ended, self.expires].into_iter().flatten().min();
        let now = Timestamp::now();
        matches!(self.who, Holder::Token { .. })
            && over.is_some_and(|over| now.duration_since(over) > ENDED_RETENTION)
    }

    /// Why it makes no sense.
    pub fn check(&self) -> Result<(), String> {
        if let Some(hosts) = &self.hosts {
            HostList::read(hosts)?;
        }
        for method in self.methods.iter().flatten() {
            method.parse::<Method>().map_err(|_| format!("'{}' is no method", method.escape_debug()))?;
        }
        if self.uses.is_some_and(|uses| uses == 0 || uses > session_uses::MAX_USES) {
            return Err(format!("from 1 to {} uses can be counted", session_uses::MAX_USES));
        }
        if let Holder::Cgroup { path } | Holder::Run { cgroup: path } = &self.who
            && !(path.len() > 1 && path.starts_with('/') && !path.ends_with('/'))
        {
            return Err("a cgroup is a path such as /agents.slice".to_owned());
        }
        Ok(())
    }
}

impl Holder {
    /// Whether those are there, as far as can be seen.
    pub fn is_alive(&self) -> bool {
        match self {
            Holder::Tree { pid, start_time, .. } => ancestry::lives((*pid, *start_time)),
            Holder::Run { cgroup } | Holder::Cgroup { path: cgroup } => {
                hierarchy().is_none_or(|root| root.join(cgroup.trim_start_matches('/')).is_dir())
            }
            Holder::Container { .. } | Holder::Token { .. } => true,
        }
    }
}

/// The mount point of the cgroup v2 tree, if it is visible.
pub fn hierarchy() -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        let mounts = procfs::process::Process::myself().and_then(|process| process.mountinfo()).ok()?;
        let unified = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2" && mount.root == "/");
        unified.map(|mount| mount.mount_point)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The file as requests are judged by it: each question costs the same, however many sessions there are.
#[derive(Default)]
pub(super) struct SessionIndex {
    boot: String,
    by_id: HashMap<Arc<str>, Arc<Entry>>,
    trees: HashMap<ProcessStart, Vec<Arc<Entry>>>,
    cgroups: HashMap<String, Vec<Arc<Entry>>>,
    containers: HashMap<String, Vec<Arc<Entry>>>,
}

/// A session as it is judged.
pub(super) struct Entry {
    pub(super) id: Arc<str>,
    pub(super) session: Session,
    pub(super) hosts: Option<HostList>,
    pub(super) secrets: Option<HashSet<SecretName>>,
    lease: Option<Lease>,
}

impl SessionIndex {
    ///
    /// # Errors
    /// When a session names hosts that are none.
    pub(super) fn new(sessions: Sessions, last: Option<&Self>, now: ClockReading) -> Result<Self, String> {
        let mut index = Self { boot: clock::boot(), ..Self::default() };
        let uptime = clock::uptime();
        for session in sessions.sessions {
            let before =
                last.and_then(|last| last.by_id.get(session.id.as_str())).and_then(|entry| entry.lease);
            let passed = if session.boot == index.boot { uptime.saturating_sub(session.uptime) } else { 0 };
            let passed = Duration::from_secs(passed.saturating_sub(1));
            let lease = session.expires.map(|end| Lease::begin(session.started, end, passed, now));
            let entry = Arc::new(Entry {
                id: session.id.as_str().into(),
                hosts: session.hosts.as_ref().map(|hosts| HostList::read(hosts)).transpose()?,
                secrets: session.secrets.clone().map(HashSet::from_iter),
                lease: lease.map(|lease| before.map_or(lease, |before| lease.within(&before))),
                session,
            });
            match &entry.session.who {
                Holder::Tree { pid, start_time, .. } => {
                    index.trees.entry((*pid, *start_time)).or_default().push(entry.clone());
                }
                Holder::Cgroup { path } | Holder::Run { cgroup: path } => {
                    index.cgroups.entry(path.clone()).or_default().push(entry.clone());
                }
                Holder::Container { id } => {
                    index.containers.entry(id.clone()).or_default().push(entry.clone())
                }
                Holder::Token { .. } => {}
            }
            index.by_id.insert(entry.id.clone(), entry);
        }
        Ok(index)
    }

    /// The session with this id.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.by_id.get(id)
    }

    /// Every session that is for `caller` by what the kernel says of it, ended ones too.
    pub(super) fn of(&self, caller: &Caller) -> Vec<Arc<Entry>> {
        let process = &caller.process;
        let mut found = Vec::new();
        if !self.trees.is_empty() {
            let attributes = &caller.attributes;
            let line = attributes.lineage.get_or_init(|| Ancestry::of(process).then(attributes.asked_by));
            found.extend(line.iter().filter_map(|born| self.trees.get(born)).flatten());
            found.retain(|entry| entry.is_in_container(process));
        }
        if !self.cgroups.is_empty() {
            let mut path = process.cgroup.as_str();
            while let Some((above, _)) = path.rsplit_once('/') {
                found.extend(self.cgroups.get(path).into_iter().flatten());
                path = above;
            }
        }
        if !self.containers.is_empty()
            && let Some(container) = process.container()
        {
            found.extend(self.containers.get(container.id).into_iter().flatten());
        }
        found.into_iter().cloned().collect()
    }

    /// Why `entry` does not hold any longer.
    pub(super) fn over(&self, entry: &Entry, now: ClockReading) -> Option<&'static str> {
        let session = &entry.session;
        if session.ended.is_some() {
            Some("somebody ended it")
        } else if entry.lease.is_some_and(|lease| lease.is_over(now)) {
            Some("its time is over")
        } else if session.boot != self.boot {
            Some("the machine was started anew")
        } else if let Holder::Tree { pid, start_time, .. } = session.who
            && !ancestry::lives((pid, start_time))
        {
            Some("the process that it was for has ended")
        } else {
            None
        }
    }
}

impl Entry {
    fn is_in_container(&self, process: &Process) -> bool {
        match &self.session.who {
            Holder::Tree { container: Some(own), .. } => {
                process.container().is_some_and(|container| container.id == own)
            }
            _ => true,
        }
    }
}

/// The file, followed.
pub(super) struct SessionsFile(pub(super) PathBuf);

impl FileSource for SessionsFile {
    type Content = SessionIndex;
    type Error = RegistryError;

    const NAME: &'static str = "sessions";

    fn text(&self) -> Result<Option<String>, RegistryError> {
        registry::text(&self.0)
    }

    fn parse(&self, text: Option<&str>, last: Option<&SessionIndex>) -> Result<SessionIndex, RegistryError> {
        let had = last.is_some_and(|last| !last.by_id.is_empty());
        let index = SessionIndex::new(registry::follow(text, &self.0, had)?, last, ClockReading::read());
        index.map_err(|what| RegistryError::Invalid { path: self.0.clone(), line: 0, what })
    }
}
