//! Builds a commit from a draft: it adds the grants and key rotations that the draft makes necessary.

use agentsecrets_types::name::{Environment, Project, SecretName};
use agentsecrets_types::secret::Secret;
use agentsecrets_vault::Base64;
use zeroize::Zeroizing;

use crate::commit::{Commit, Control, Entry, Grant, KeyLine, KeyRecord};
use crate::crypto::{DataKey, seal_to};
use crate::error::Error;
use crate::id::Id;
use crate::identity::Identity;
use crate::roster::{Access, Member, Operation, Role, Roster};
use crate::state::{Address, NamePart, State, grant_context, key_context, value_context};

/// A new version of a secret.
pub struct SecretChange {
    /// The environment.
    pub environment: Environment,
    /// The project.
    pub project: Project,
    /// The name.
    pub name: SecretName,
    /// The fixed placeholder.
    pub placeholder: Option<String>,
    /// The value, or `None` to delete the secret.
    pub value: Option<Secret>,
}

/// Changes that become one commit.
#[derive(Default)]
pub struct Draft {
    /// Changes of members, rights and shared files.
    pub operations: Vec<Operation>,
    /// New versions of secrets. An environment that does not exist yet is created.
    pub secrets: Vec<SecretChange>,
}

impl State {
    /// The first commit of a workspace: its founder is its admin.
    ///
    /// # Errors
    /// If a library fails.
    pub fn found(identity: &Identity, name: &str, email: &str) -> Result<Commit, Error> {
        let member = Member {
            id: identity.member,
            email: email.to_owned(),
            role: Role::Admin,
            public: identity.public().clone(),
        };
        let state = State::new(identity.workspace);
        let mut roster = Roster::default();
        let operation = Operation::Add { member };
        roster.apply(0, operation.clone()).map_err(|what| Error::Refused(what.to_owned()))?;
        let key = DataKey::random()?;
        let mut line = KeyLine::default();
        line.keys.push(state.record(Id::WORKSPACE_KEY, 1, &key, name, None)?);
        state.grant(&mut line, &roster, Id::WORKSPACE_KEY, 1, &key, identity.member)?;
        line.control = Some(state.control(1, &key, &[operation])?);
        Commit::sign(identity, 0, state.head(), &line, &[])
    }

    /// The commit of `draft` after the present ones.
    ///
    /// # Errors
    /// If the member may not make the change, or it makes no sense.
    pub fn build(&self, identity: &Identity, draft: &Draft) -> Result<Commit, Error> {
        let mut roster = self.roster().clone();
        let me = roster.members.get(&identity.member).cloned();
        let me = me.ok_or_else(|| Error::NotMember("you are no longer a member of this workspace".into()))?;
        if !draft.operations.is_empty() && me.role != Role::Admin {
            return Err(Error::Denied("only an admin of the workspace may do this".into()));
        }
        for operation in &draft.operations {
            let refused = |what: &str| Error::Refused(format!("this {what}"));
            roster.apply(self.next(), operation.clone()).map_err(refused)?;
        }
        if !roster.members.values().any(|member| member.role == Role::Admin) {
            return Err(Error::Refused("a workspace needs at least one admin".into()));
        }
        let mut line = KeyLine::default();
        let mut fresh: Vec<(Id, u32, DataKey, String)> = Vec::new();
        for (id, key) in self.keys() {
            let readers = roster.readers(id);
            if key.granted.difference(&readers).next().is_some() {
                let (generation, before) = self.current_key(id).ok_or_else(|| self.unreadable(id))?;
                let (generation, next) = (generation + 1, DataKey::random()?);
                let name = self.environment_name(id);
                line.keys.push(self.record(id, generation, &next, &name, Some(before))?);
                for member in readers {
                    self.grant(&mut line, &roster, id, generation, &next, member)?;
                }
                fresh.push((id, generation, next, name));
                continue;
            }
            for member in readers.difference(&key.granted) {
                let (generation, current) = self.current_key(id).ok_or_else(|| self.unreadable(id))?;
                self.grant(&mut line, &roster, id, generation, current, *member)?;
            }
        }
        for change in &draft.secrets {
            let name = change.environment.as_str();
            if self.environment(&change.environment).is_some() || fresh.iter().any(|new| new.3 == name) {
                continue;
            }
            if me.role == Role::Agent {
                return Err(Error::Denied(format!("an agent may not create the environment {name}")));
            }
            let (id, key) = (Id::random()?, DataKey::random()?);
            roster.access.entry(id).or_default().insert(identity.member, Access::Write);
            line.keys.push(self.record(id, 1, &key, name, None)?);
            for member in roster.readers(id) {
                self.grant(&mut line, &roster, id, 1, &key, member)?;
            }
            fresh.push((id, 1, key, name.to_owned()));
        }
        if !draft.operations.is_empty() {
            // Sealed under the newest generation: a removed member cannot read what follows the removal.
            let rotated = fresh.iter().find(|new| new.0 == Id::WORKSPACE_KEY);
            let (generation, key) = match rotated {
                Some((_, generation, key, _)) => (*generation, key),
                None => {
                    self.current_key(Id::WORKSPACE_KEY).ok_or_else(|| self.unreadable(Id::WORKSPACE_KEY))?
                }
            };
            line.control = Some(self.control(generation, key, &draft.operations)?);
        }
        let entries: Result<Vec<Entry>, Error> =
            draft.secrets.iter().map(|change| self.entry(&roster, identity, &fresh, change)).collect();
        Commit::sign(identity, self.next(), self.head(), &line, &entries?)
    }

    fn entry(
        &self,
        roster: &Roster,
        identity: &Identity,
        fresh: &[(Id, u32, DataKey, String)],
        change: &SecretChange,
    ) -> Result<Entry, Error> {
        let name = change.environment.as_str();
        let (environment, generation, key) = match fresh.iter().find(|new| new.3 == name) {
            Some((id, generation, key, _)) => (*id, *generation, key),
            None => {
                let id = self.environment(&change.environment).ok_or_else(|| {
                    Error::NotFound(format!("the workspace has no environment {name} that you may read"))
                })?;
                let (generation, key) = self.current_key(id).ok_or_else(|| self.unreadable(id))?;
                (id, generation, key)
            }
        };
        if roster.access(identity.member, environment) < Access::Write {
            return Err(Error::Denied(format!("you may read the environment {name} and not change it")));
        }
        let address = Address { environment, project: change.project.clone(), name: change.name.clone() };
        let version = self.history(&address).last().map_or(1, |last| last.version + 1);
        let part = NamePart {
            project: address.project.clone(),
            name: address.name.clone(),
            version,
            placeholder: change.placeholder.clone(),
            deleted: change.value.is_none(),
        };
        let part =
            Zeroizing::new(serde_json::to_vec(&part).map_err(|_| Error::Crypto("a name cannot be written"))?);
        let sealed_name = key.seal(&key_context("name", self.workspace(), environment, generation), &part)?;
        let value = change.value.as_ref().map_or(&[][..], |value| value.expose());
        let context = value_context(self.workspace(), &address, name, version);
        let value = Base64(key.seal(&context, value)?);
        Ok(Entry { environment, generation, name: Base64(sealed_name), value })
    }

    fn record(
        &self,
        id: Id,
        generation: u32,
        key: &DataKey,
        name: &str,
        before: Option<&DataKey>,
    ) -> Result<KeyRecord, Error> {
        let sealed = |label: &str, content: &[u8]| {
            key.seal(&key_context(label, self.workspace(), id, generation), content).map(Base64)
        };
        let prior = before.map(|before| sealed("prior", before.expose())).transpose()?;
        let check = Base64(key.check()?.expose().to_vec());
        Ok(KeyRecord { key: id, generation, check, name: sealed("name of key", name.as_bytes())?, prior })
    }

    fn grant(
        &self,
        line: &mut KeyLine,
        roster: &Roster,
        id: Id,
        generation: u32,
        key: &DataKey,
        member: Id,
    ) -> Result<(), Error> {
        let Some(to) = roster.members.get(&member) else { return Ok(()) };
        let info = grant_context(self.workspace(), id, generation, member);
        let (encapsulated, sealed) = seal_to(&to.public.encryption.0, &info, key.expose())?;
        let (encapsulated, sealed) = (Base64(encapsulated), Base64(sealed));
        line.grants.push(Grant { key: id, generation, member, encapsulated, sealed });
        Ok(())
    }

    fn control(&self, generation: u32, key: &DataKey, operations: &[Operation]) -> Result<Control, Error> {
        let bytes =
            serde_json::to_vec(operations).map_err(|_| Error::Crypto("operations cannot be written"))?;
        let context = key_context("control", self.workspace(), Id::WORKSPACE_KEY, generation);
        Ok(Control { generation, sealed: Base64(key.seal(&context, &bytes)?) })
    }

    fn unreadable(&self, key: Id) -> Error {
        Error::Denied(format!("the key of {} is not sealed to you", self.environment_name(key)))
    }
}
