//! Tests of whole workspaces over a store in memory.

mod hostile;
mod vectors;
mod workspace;

use std::collections::BTreeMap;
use std::sync::Arc;

use agentsecrets_types::secret::Secret;
use object_store::memory::InMemory;
use tempfile::TempDir;

use crate::*;

/// One store, and the machines of its members.
pub(crate) struct Team {
    pub(crate) store: Arc<InMemory>,
    pub(crate) machines: Vec<TempDir>,
}

impl Team {
    pub(crate) fn new() -> Self {
        Self { store: Arc::new(InMemory::new()), machines: Vec::new() }
    }

    pub(crate) fn remote(&self) -> Remote {
        Remote::over(self.store.clone())
    }

    pub(crate) fn machine(&mut self) -> Cache {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        self.machines.push(folder);
        cache
    }

    pub(crate) async fn founder(&mut self) -> Client {
        let identity = Identity::generate(Id::random().unwrap(), Id::random().unwrap()).unwrap();
        let (remote, cache) = (self.remote(), self.machine());
        Client::found(remote, cache, identity, "acme", "ann@acme.test").await.unwrap()
    }

    /// Invites, joins and accepts a member.
    pub(crate) async fn join(
        &mut self,
        admin: &mut Client,
        email: &str,
        role: Role,
        access: &[(&str, Access)],
    ) -> Client {
        let invitation = invite(admin, email, role, access).await;
        let identity = Identity::generate(invitation.workspace, invitation.id).unwrap();
        JoinRequest::send(&self.remote(), &invitation, &identity).await.unwrap();
        accept(admin, email).await;
        let cache = self.machine();
        cache.set_pin(invitation.pin).unwrap();
        let mut client = Client::open(self.remote(), cache, identity).unwrap();
        client.fetch(&mut |_| ()).await.unwrap();
        client
    }
}

pub(crate) async fn invite(
    admin: &mut Client,
    email: &str,
    role: Role,
    access: &[(&str, Access)],
) -> Invitation {
    let state = admin.state();
    let access: BTreeMap<Id, Access> = access
        .iter()
        .map(|(name, access)| (state.environment(&name.parse().unwrap()).unwrap(), *access))
        .collect();
    let invitation =
        Invitation::new("memory", state.workspace(), admin.pin().unwrap(), admin.identity().public())
            .unwrap();
    let invitation = Invitation::from_code(&invitation.to_code().unwrap()).unwrap();
    let pending = PendingInvitation {
        id: invitation.id,
        email: email.to_owned(),
        role,
        access,
        key: invitation.key().unwrap(),
    };
    let draft =
        || Draft { operations: vec![Operation::Invite { invitation: pending.clone() }], ..Draft::default() };
    admin.submit(|_| Ok(Some(draft()))).await.unwrap();
    invitation
}

pub(crate) async fn accept(admin: &mut Client, email: &str) {
    let pending = admin.state().roster().invitation(email).unwrap().clone();
    let workspace = admin.state().workspace();
    let public = JoinRequest::receive(admin.remote(), workspace, &pending).await.unwrap().unwrap();
    let draft = || {
        let member =
            Member { id: pending.id, email: email.to_owned(), role: pending.role, public: public.clone() };
        let mut operations = vec![Operation::Uninvite { invitation: pending.id }, Operation::Add { member }];
        let granted = pending.access.iter();
        operations.extend(granted.map(|(environment, access)| Operation::Access {
            member: pending.id,
            environment: *environment,
            access: *access,
        }));
        Draft { operations, ..Draft::default() }
    };
    admin.submit(|_| Ok(Some(draft()))).await.unwrap();
}

pub(crate) fn change(environment: &str, name: &str, value: Option<&str>) -> SecretChange {
    SecretChange {
        environment: environment.parse().unwrap(),
        project: "shop".parse().unwrap(),
        name: name.parse().unwrap(),
        placeholder: None,
        value: value.map(|value| Secret::new(value.as_bytes().to_vec())),
    }
}

pub(crate) async fn push(
    client: &mut Client,
    environment: &str,
    name: &str,
    value: &str,
) -> Result<Option<u64>, Error> {
    let draft = || Draft { secrets: vec![change(environment, name, Some(value))], ..Draft::default() };
    client.submit(|_| Ok(Some(draft()))).await
}

/// The value of a secret, or `None` if the member does not see it.
pub(crate) fn value(client: &Client, environment: &str, name: &str) -> Option<String> {
    let state = client.state();
    let environment = state.environment(&environment.parse().unwrap())?;
    let address = Address { environment, project: "shop".parse().unwrap(), name: name.parse().unwrap() };
    let version = state.history(&address).last()?;
    let value = state.value(&address, version).unwrap();
    Some(String::from_utf8(value.expose().to_vec()).unwrap())
}

pub(crate) async fn fetch(client: &mut Client) -> Result<u64, Error> {
    client.fetch(&mut |_| ()).await
}
