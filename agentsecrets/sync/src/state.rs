//! The state of a workspace as one member sees it: every commit is linked, signed and allowed, and what the member
//! may read is opened.

use std::collections::{BTreeMap, BTreeSet};

use agentsecrets_types::name::{Environment, Project, SecretName};
use agentsecrets_types::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::commit::{Commit, Entry, Grant, Hash, KeyLine, KeyRecord, NO_HASH};
use crate::crypto::{DataKey, context};
use crate::error::Error;
use crate::id::Id;
use crate::identity::{Identity, PublicIdentity};
use crate::roster::{Access, Operation, Role, Roster};

/// The address of a shared secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The environment's id.
    pub environment: Id,
    /// The project.
    pub project: Project,
    /// The name.
    pub name: SecretName,
}

/// One version of a secret; its value stays sealed.
#[derive(Debug, Clone)]
pub struct Version {
    /// 1 for the first version, then rising by one.
    pub version: u64,
    /// Whether this version deletes the secret.
    pub deleted: bool,
    /// The fixed placeholder.
    pub placeholder: Option<String>,
    /// The time that its author wrote.
    pub time: String,
    /// The author.
    pub author: Id,
    /// Number of the commit.
    pub seq: u64,
    generation: u32,
    sealed: Vec<u8>,
}

/// The sealed name of an entry, opened.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamePart {
    pub(crate) project: Project,
    pub(crate) name: SecretName,
    pub(crate) version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) placeholder: Option<String>,
    pub(crate) deleted: bool,
}

/// A data key as the log describes it.
#[derive(Debug, Clone)]
pub(crate) struct KeyState {
    pub(crate) generation: u32,
    /// The members that the current generation is sealed to.
    pub(crate) granted: BTreeSet<Id>,
}

/// A verified workspace.
pub struct State {
    workspace: Id,
    /// Number of commits.
    next: u64,
    head: Hash,
    roster: Roster,
    keys: BTreeMap<Id, KeyState>,
    opened: BTreeMap<(Id, u32), DataKey>,
    /// Names of the workspace and of environments whose key is open.
    names: BTreeMap<Id, String>,
    secrets: BTreeMap<Address, Vec<Version>>,
    /// Key records of every commit so far: the way from a key to its older generations.
    records: BTreeMap<(Id, u32), KeyRecord>,
}

impl State {
    /// The state before the first commit.
    pub fn new(workspace: Id) -> Self {
        Self {
            workspace,
            next: 0,
            head: NO_HASH,
            roster: Roster::default(),
            keys: BTreeMap::new(),
            opened: BTreeMap::new(),
            names: BTreeMap::new(),
            secrets: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }

    /// Verifies `commits`, which follow the present ones, and applies them all; on an error none counts, and the
    /// state is to be dropped.
    ///
    /// # Errors
    /// If a commit is not linked, signed and allowed, or no workspace key is sealed to `identity`.
    pub fn extend(mut self, identity: &Identity, commits: &[Commit]) -> Result<Self, Error> {
        self.open_keys(identity, commits)?;
        for commit in commits {
            self.apply(commit)?;
        }
        Ok(self)
    }

    /// The workspace.
    pub fn workspace(&self) -> Id {
        self.workspace
    }

    /// The number of the next commit.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The hash of the last commit.
    pub fn head(&self) -> Hash {
        self.head
    }

    /// Words for the last commit, for comparing histories between people.
    pub fn head_words(&self) -> String {
        crate::identity::words(&self.head.0)
    }

    /// Members and rights.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The name of the workspace.
    pub fn name(&self) -> &str {
        self.names.get(&Id::WORKSPACE_KEY).map_or("", String::as_str)
    }

    /// The ids of all environments.
    pub fn environment_ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.keys.keys().copied().filter(|key| *key != Id::WORKSPACE_KEY)
    }

    /// The environments whose key is open, by name.
    pub fn environments(&self) -> BTreeMap<Environment, Id> {
        let named = self.names.iter().filter(|(id, _)| **id != Id::WORKSPACE_KEY);
        named.filter_map(|(id, name)| Some((name.parse().ok()?, *id))).collect()
    }

    /// The name of an environment, or its id if its key is not open.
    pub fn environment_name(&self, id: Id) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// The environment named `name`.
    pub fn environment(&self, name: &Environment) -> Option<Id> {
        self.environments().get(name).copied()
    }

    /// The last version of each secret in an environment, deleted ones too.
    pub fn secrets(&self, environment: Id) -> impl Iterator<Item = (&Address, &Version)> {
        let all = self.secrets.iter().filter(move |(address, _)| address.environment == environment);
        all.filter_map(|(address, versions)| Some((address, versions.last()?)))
    }

    /// All versions of a secret, the first first.
    pub fn history(&self, address: &Address) -> &[Version] {
        self.secrets.get(address).map_or(&[], Vec::as_slice)
    }

    /// The value of a version.
    ///
    /// # Errors
    /// If its bytes are not those that were sealed at this address and version.
    pub fn value(&self, address: &Address, version: &Version) -> Result<Secret, Error> {
        let altered =
            || Error::Altered { seq: version.seq, what: "a value is not that of its name and version" };
        let key = self.opened.get(&(address.environment, version.generation)).ok_or_else(altered)?;
        let context = self.value_context(address, version.version);
        key.open(&context, &version.sealed).ok_or_else(altered)
    }

    /// The members that could read something of a secret's value, present or former, is decided by grants; these are
    /// the secrets that `member` could read.
    pub fn known_to(&self, member: Id) -> Vec<&Address> {
        let readable = |environment| self.roster.access(member, environment) >= Access::Read;
        let live = |versions: &Vec<Version>| versions.last().is_some_and(|version| !version.deleted);
        let all = self.secrets.iter().filter(|(_, versions)| live(versions));
        all.filter(|(address, _)| readable(address.environment)).map(|(address, _)| address).collect()
    }

    /// Whether `commits` seal a key to `identity` whose earlier secrets this state has passed over.
    pub(crate) fn misses_key_of(&self, identity: &Identity, commits: &[Commit]) -> Result<bool, Error> {
        for commit in commits {
            let grants = commit.keys()?.grants;
            let mine = grants.iter().filter(|grant| grant.member == identity.member);
            let held = |key: Id| self.opened.keys().any(|(held, _)| *held == key);
            if mine.into_iter().any(|grant| self.keys.contains_key(&grant.key) && !held(grant.key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The rights, for tests that break them.
    #[cfg(test)]
    pub(crate) fn roster_mut(&mut self) -> &mut Roster {
        &mut self.roster
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (Id, &KeyState)> {
        self.keys.iter().map(|(id, key)| (*id, key))
    }

    /// The current generation of a key, if it is open.
    pub(crate) fn current_key(&self, key: Id) -> Option<(u32, &DataKey)> {
        let generation = self.keys.get(&key)?.generation;
        Some((generation, self.opened.get(&(key, generation))?))
    }

    /// What a value is bound to.
    pub(crate) fn value_context(&self, address: &Address, version: u64) -> Vec<u8> {
        let environment = self.environment_name(address.environment);
        value_context(self.workspace, address, &environment, version)
    }

    /// Opens every key that `commits` seal to `identity`, and its older generations.
    fn open_keys(&mut self, identity: &Identity, commits: &[Commit]) -> Result<(), Error> {
        let mut grants: Vec<Grant> = Vec::new();
        for commit in commits {
            let line = commit.keys()?;
            for record in line.keys {
                self.records.entry((record.key, record.generation)).or_insert(record);
            }
            grants.extend(line.grants.into_iter().filter(|grant| grant.member == identity.member));
        }
        for grant in grants {
            let info = grant_context(self.workspace, grant.key, grant.generation, grant.member);
            let opened = identity.open(&info, &grant.encapsulated.0, &grant.sealed.0);
            if let Some(key) = opened.and_then(DataKey::new) {
                self.open_chain(grant.key, grant.generation, key);
            }
        }
        if self.opened.keys().any(|(key, _)| *key == Id::WORKSPACE_KEY) {
            return Ok(());
        }
        Err(Error::NotMember(
            "no key of this workspace is sealed to you: an admin has not accepted you yet".into(),
        ))
    }

    /// Keeps a key that matches its record, and the generations before it.
    fn open_chain(&mut self, id: Id, generation: u32, key: DataKey) {
        let (mut generation, mut key) = (generation, key);
        loop {
            let Some(record) = self.records.get(&(id, generation)) else { return };
            if !key.matches(&record.check.0) || self.opened.contains_key(&(id, generation)) {
                return;
            }
            let context = key_context("prior", self.workspace, id, generation);
            let prior = record.prior.as_ref().and_then(|prior| key.open(&context, &prior.0));
            self.opened.insert((id, generation), key);
            match prior.and_then(DataKey::new) {
                Some(before) => (generation, key) = (generation - 1, before),
                None => return,
            }
        }
    }

    fn apply(&mut self, commit: &Commit) -> Result<(), Error> {
        let (seq, header) = (commit.seq(), &commit.header);
        if seq != self.next || header.prev != self.head || header.workspace != self.workspace {
            return Err(Error::Unlinked(seq));
        }
        let line = commit.keys()?;
        // A known author's signature comes first: only what is signed can say that we are no longer a member.
        let known = self.roster.members.get(&header.author).map(|member| member.public.clone());
        let unsigned = Error::Altered { seq, what: "its signature" };
        if known.as_ref().is_some_and(|author| !commit.is_signed_by(author)) {
            return Err(unsigned);
        }
        let operations = self.operations(seq, &line)?;
        if known.is_none() && !commit.is_signed_by(&self.founder(commit, &operations)?) {
            return Err(unsigned);
        }
        let author = header.author;
        self.apply_control(seq, author, operations, &line)?;
        for entry in commit.entries() {
            self.apply_entry(commit, entry?)?;
        }
        (self.next, self.head) = (seq + 1, commit.hash());
        Ok(())
    }

    /// The keys of the founder, if this is the first commit.
    fn founder(&self, commit: &Commit, operations: &[Operation]) -> Result<PublicIdentity, Error> {
        let author = commit.header.author;
        match operations {
            [Operation::Add { member }] if commit.seq() == 0 && member.id == author => {
                Ok(member.public.clone())
            }
            _ => Err(self.forbidden(commit.seq(), author, "is not by a member")),
        }
    }

    fn operations(&self, seq: u64, line: &KeyLine) -> Result<Vec<Operation>, Error> {
        let Some(control) = &line.control else { return Ok(Vec::new()) };
        let altered = Error::Altered { seq, what: "its operations" };
        let key = self.opened.get(&(Id::WORKSPACE_KEY, control.generation));
        if key.is_none()
            && control.generation > self.keys.get(&Id::WORKSPACE_KEY).map_or(0, |key| key.generation)
        {
            return Err(Error::NotMember(
                "you are no longer a member of this workspace: an admin removed you".into(),
            ));
        }
        let context = key_context("control", self.workspace, Id::WORKSPACE_KEY, control.generation);
        let opened = key.and_then(|key| key.open(&context, &control.sealed.0));
        opened.and_then(|bytes| serde_json::from_slice(bytes.expose()).ok()).ok_or(altered)
    }

    fn apply_control(
        &mut self,
        seq: u64,
        author: Id,
        operations: Vec<Operation>,
        line: &KeyLine,
    ) -> Result<(), Error> {
        let mut roster = self.roster.clone();
        if !(operations.is_empty() || seq == 0 || roster.is_admin(author)) {
            return Err(self.forbidden(seq, author, "changes members or rights and is not by an admin"));
        }
        for operation in operations {
            roster.apply(seq, operation).map_err(|what| self.forbidden(seq, author, what))?;
        }
        if !roster.members.values().any(|member| member.role == Role::Admin) {
            return Err(self.forbidden(seq, author, "leaves no admin"));
        }
        let mut keys = self.keys.clone();
        let mut created = BTreeSet::new();
        for record in &line.keys {
            let may_create = self.roster.members.get(&author).is_none_or(|member| member.role != Role::Agent);
            match keys.get(&record.key) {
                None if record.generation == 1 && may_create => {
                    created.insert(record.key);
                    roster.access.entry(record.key).or_default().insert(author, Access::Write);
                }
                Some(key) if record.generation == key.generation + 1 && self.roster.is_admin(author) => {}
                _ => return Err(self.forbidden(seq, author, "changes a key and may not")),
            }
            self.name_key(seq, record)?;
            let state = KeyState { generation: record.generation, granted: BTreeSet::new() };
            keys.insert(record.key, state);
        }
        for grant in &line.grants {
            let may_grant = seq == 0 || self.roster.is_admin(author) || created.contains(&grant.key);
            let key = keys.get_mut(&grant.key).filter(|key| key.generation == grant.generation);
            let Some(key) = key.filter(|_| may_grant) else {
                return Err(self.forbidden(seq, author, "grants a key and may not"));
            };
            key.granted.insert(grant.member);
        }
        for (id, key) in &keys {
            if key.granted != roster.readers(*id) {
                return Err(self.forbidden(seq, author, "seals a key to others than its readers"));
            }
        }
        (self.roster, self.keys) = (roster, keys);
        Ok(())
    }

    /// Opens the name of a workspace or environment.
    fn name_key(&mut self, seq: u64, record: &KeyRecord) -> Result<(), Error> {
        let Some(key) = self.opened.get(&(record.key, record.generation)) else { return Ok(()) };
        let context = key_context("name of key", self.workspace, record.key, record.generation);
        let opened = key.open(&context, &record.name.0);
        let name = opened.and_then(|name| String::from_utf8(name.expose().to_vec()).ok());
        let name = name.ok_or(Error::Altered { seq, what: "the name of an environment" })?;
        let renamed = self.names.get(&record.key).is_some_and(|before| *before != name);
        let twice = self.names.iter().any(|(id, other)| {
            *id != record.key && record.key != Id::WORKSPACE_KEY && *id != Id::WORKSPACE_KEY && *other == name
        });
        if renamed || twice {
            return Err(Error::Altered { seq, what: "an environment takes another's name" });
        }
        self.names.insert(record.key, name);
        Ok(())
    }

    fn apply_entry(&mut self, commit: &Commit, entry: Entry) -> Result<(), Error> {
        let (seq, author) = (commit.seq(), commit.header.author);
        if self.roster.access(author, entry.environment) < Access::Write {
            return Err(self.forbidden(seq, author, "writes an environment and may not"));
        }
        let generation = self.keys.get(&entry.environment).map(|key| key.generation);
        if generation != Some(entry.generation) {
            return Err(self.forbidden(seq, author, "uses a key that is not the current one"));
        }
        let Some(key) = self.opened.get(&(entry.environment, entry.generation)) else { return Ok(()) };
        let context = key_context("name", self.workspace, entry.environment, entry.generation);
        let opened = key.open(&context, &entry.name.0);
        let part: Option<NamePart> = opened.and_then(|name| serde_json::from_slice(name.expose()).ok());
        let part = part.ok_or(Error::Altered { seq, what: "the name of a secret" })?;
        let address = Address { environment: entry.environment, project: part.project, name: part.name };
        let versions = self.secrets.entry(address).or_default();
        let expected = versions.last().map_or(1, |last| last.version + 1);
        if part.version != expected {
            return Err(Error::Altered { seq, what: "it replays an older version of a secret" });
        }
        versions.push(Version {
            version: part.version,
            deleted: part.deleted,
            placeholder: part.placeholder,
            time: commit.header.time.clone(),
            author,
            seq,
            generation: entry.generation,
            sealed: entry.value.0,
        });
        Ok(())
    }

    fn forbidden(&self, seq: u64, author: Id, what: &str) -> Error {
        Error::Forbidden { seq, author: self.roster.email(author), what: what.to_owned() }
    }
}

/// What a value is bound to.
pub(crate) fn value_context(workspace: Id, address: &Address, environment: &str, version: u64) -> Vec<u8> {
    let (workspace, version) = (workspace.to_string(), version.to_string());
    let parts = [&workspace, address.project.as_str(), environment, address.name.as_str(), &version];
    context("value", &parts.map(str::as_bytes))
}

/// What something under the key `key` is bound to.
pub(crate) fn key_context(label: &str, workspace: Id, key: Id, generation: u32) -> Vec<u8> {
    let parts = [workspace.to_string(), key.to_string(), generation.to_string()];
    context(label, &[parts[0].as_bytes(), parts[1].as_bytes(), parts[2].as_bytes()])
}

/// What a grant is bound to: the `info` of HPKE.
pub(crate) fn grant_context(workspace: Id, key: Id, generation: u32, member: Id) -> Vec<u8> {
    let parts = [workspace.to_string(), key.to_string(), generation.to_string(), member.to_string()];
    context("grant", &[parts[0].as_bytes(), parts[1].as_bytes(), parts[2].as_bytes(), parts[3].as_bytes()])
}
