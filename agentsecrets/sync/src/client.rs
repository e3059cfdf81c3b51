//! One member's view of a workspace: fetches and verifies new commits, and submits drafts as commits.

use std::time::Duration;

use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::build::Draft;
use crate::cache::{Cache, Pin};
use crate::commit::{Commit, head_hash};
use crate::error::Error;
use crate::id::Id;
use crate::identity::Identity;
use crate::remote::Remote;
use crate::state::State;

/// Requests at once.
const CONCURRENCY: u64 = 32;
/// Commits in one pack.
const PACK: u64 = 64;
/// A larger pack is not made.
const MAX_PACK: usize = 16 * 1024 * 1024;
/// Attempts of a submission while others are faster.
const MAX_ATTEMPTS: u32 = 1000;

/// A member's view of a workspace.
pub struct Client {
    remote: Remote,
    cache: Cache,
    identity: Identity,
    state: State,
    pin: Option<Pin>,
}

impl Client {
    /// Founds a workspace: its first commit is created in the store.
    ///
    /// # Errors
    /// If the store refuses.
    pub async fn found(
        remote: Remote,
        cache: Cache,
        identity: Identity,
        name: &str,
        email: &str,
    ) -> Result<Self, Error> {
        let commit = State::found(&identity, name, email)?;
        if !remote.create_commit(identity.workspace, 0, commit.bytes()).await? {
            return Err(Error::Refused("the storage has a workspace of this id already".into()));
        }
        let mut client = Self::empty(remote, cache, identity)?;
        client.accept(vec![commit])?;
        Ok(client)
    }

    /// Opens the workspace as this machine knows it; nothing is fetched.
    ///
    /// # Errors
    /// If what the machine keeps does not verify.
    pub fn open(remote: Remote, cache: Cache, identity: Identity) -> Result<Self, Error> {
        let mut client = Self::empty(remote, cache, identity)?;
        let commits = client.cache.commits(0);
        if !commits.is_empty() {
            client.verify_pin(&commits, false)?;
            let state = State::new(client.identity.workspace);
            client.state = state.extend(&client.identity, &commits)?;
        }
        Ok(client)
    }

    fn empty(remote: Remote, cache: Cache, identity: Identity) -> Result<Self, Error> {
        let (state, pin) = (State::new(identity.workspace), cache.pin()?);
        Ok(Self { remote, cache, identity, state, pin })
    }

    /// The state as of the last fetch.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The member's keys.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The store.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The last verified commit.
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }

    /// Fetches and verifies what is new, and returns the number of new commits. `progress` gets the number so far.
    ///
    /// # Errors
    /// If the store fails, or gives what cannot be accepted.
    pub async fn fetch(&mut self, progress: &mut (dyn FnMut(u64) + Send)) -> Result<u64, Error> {
        let next = self.state.next();
        let own = self.pin.filter(|pin| pin.seq + 1 == next);
        let first = self.remote.commit(self.identity.workspace, next);
        let first = match own {
            // The store must still have the last commit that we saw.
            Some(pin) => try_join(self.verify_remote(pin), first).await?.1,
            None => first.await?,
        };
        let commits = self.collect(next, first, progress).await?;
        self.verify_pin(&commits, next + commits.len() as u64 <= self.pin.map_or(0, |pin| pin.seq))?;
        let count = commits.len() as u64;
        self.accept(commits)?;
        Ok(count)
    }

    /// Submits what `make` drafts as one commit, and returns its number. When another member was faster, `make` is
    /// asked again with the new state. `None` from it ends the submission.
    ///
    /// # Errors
    /// If the store fails, the draft is not allowed, or `make` fails.
    pub async fn submit(
        &mut self,
        mut make: impl FnMut(&State) -> Result<Option<Draft>, Error>,
    ) -> Result<Option<u64>, Error> {
        for attempt in 0..MAX_ATTEMPTS {
            self.fetch(&mut |_| ()).await?;
            let Some(draft) = make(&self.state)? else { return Ok(None) };
            let commit = self.state.build(&self.identity, &draft)?;
            let (workspace, seq) = (self.identity.workspace, commit.seq());
            let created = self.remote.create_commit(workspace, seq, commit.bytes()).await?;
            // A request that was repeated after its answer was lost finds its own commit.
            if created || self.remote.commit(workspace, seq).await?.as_deref() == Some(commit.bytes()) {
                self.accept(vec![commit])?;
                self.pack(seq).await;
                return Ok(Some(seq));
            }
            let limit = 20_u64 << attempt.min(6);
            let random = u64::from_be_bytes(agentsecrets_vault::random()?);
            tokio::time::sleep(Duration::from_millis(random % limit)).await;
        }
        Err(Error::Refused("other members change the workspace without pause: try again".into()))
    }

    /// The commits from `next` on, of which `first` is the first.
    async fn collect(
        &self,
        next: u64,
        first: Option<Vec<u8>>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Vec<Commit>, Error> {
        let mut commits: Vec<Commit> = Vec::new();
        let Some(first) = first else {
            // A single missing commit in front of others was dropped, not unwritten.
            if self.remote.head(self.identity.workspace, next + 1, 1).await?.is_some() {
                return Err(Error::Dropped(next));
            }
            return Ok(commits);
        };
        commits.push(Commit::parse(next, first)?);
        let mut batch = 4;
        loop {
            let at = next + commits.len() as u64;
            progress(at - next);
            let start = commits.last().map_or(next, Commit::seq);
            if start.is_multiple_of(PACK)
                && let Some(pack) = self.unpack(start / PACK, commits.last()).await?
            {
                commits.extend(pack);
                continue;
            }
            // Up to the next pack, which one request may bring.
            let until = (at + batch).min(at.next_multiple_of(PACK) + 1).max(at + 1);
            let fetched = self.range(at, until).await?;
            let present = fetched.iter().take_while(|commit| commit.is_some()).count();
            if fetched.iter().skip(present).any(Option::is_some) {
                return Err(Error::Dropped(at + present as u64));
            }
            let complete = present == fetched.len();
            for (seq, bytes) in (at..).zip(fetched.into_iter().flatten()) {
                commits.push(Commit::parse(seq, bytes)?);
            }
            if !complete {
                return Ok(commits);
            }
            batch = (batch * 2).min(CONCURRENCY);
        }
    }

    async fn range(&self, from: u64, until: u64) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let get = |seq| self.remote.commit(self.identity.workspace, seq);
        stream::iter(from..until).map(get).buffered(CONCURRENCY as usize).try_collect().await
    }

    /// Fails unless the store still has the commit of `pin`.
    async fn verify_remote(&self, pin: Pin) -> Result<(), Error> {
        match self.remote.head(self.identity.workspace, pin.seq, pin.head_len).await? {
            None => Err(Error::RolledBack(pin.seq)),
            Some(head) if head_hash(&head) == pin.hash => Ok(()),
            Some(_) => Err(Error::Forked(pin.seq)),
        }
    }

    /// Fails if the pinned commit is another one among `commits`, or (`required`) is not reached.
    fn verify_pin(&self, commits: &[Commit], required: bool) -> Result<(), Error> {
        let Some(pin) = self.pin else { return Ok(()) };
        match commits.iter().find(|commit| commit.seq() == pin.seq) {
            Some(commit) if commit.hash() != pin.hash => Err(Error::Forked(pin.seq)),
            None if required => Err(Error::RolledBack(pin.seq)),
            _ => Ok(()),
        }
    }

    /// Verifies commits, keeps them on this machine and pins the last.
    fn accept(&mut self, commits: Vec<Commit>) -> Result<(), Error> {
        let Some(last) = commits.last() else { return Ok(()) };
        let pin = Pin::of(last);
        let before = std::mem::replace(&mut self.state, State::new(self.identity.workspace));
        self.state = if before.misses_key_of(&self.identity, &commits)? {
            let mut all = self.cache.commits(0);
            all.truncate(usize::try_from(before.next()).unwrap_or(usize::MAX));
            all.extend(commits.iter().cloned());
            State::new(self.identity.workspace).extend(&self.identity, &all)?
        } else {
            before.extend(&self.identity, &commits)?
        };
        self.cache.keep(&commits)?;
        self.pin = Some(pin);
        Ok(())
    }

    /// Adds an object with the last 64 commits, so that a new member needs one request for them. It needs no trust:
    /// its commits are verified like others. Without it nothing is lost.
    async fn pack(&self, seq: u64) {
        if !(seq + 1).is_multiple_of(PACK) {
            return;
        }
        let from = seq + 1 - PACK;
        let mut bytes = Vec::new();
        for commit in self.cache.commits(from) {
            bytes.extend_from_slice(&(commit.bytes().len() as u64).to_be_bytes());
            bytes.extend_from_slice(commit.bytes());
        }
        if bytes.len() <= MAX_PACK {
            let _ = self.remote.create(&pack_name(self.identity.workspace, from / PACK), &bytes).await;
        }
    }

    /// The commits of a pack after `first`, its first one. Nothing if there is no pack, or one that is not whole.
    async fn unpack(&self, number: u64, first: Option<&Commit>) -> Result<Option<Vec<Commit>>, Error> {
        let Some(bytes) = self.remote.object(&pack_name(self.identity.workspace, number)).await? else {
            return Ok(None);
        };
        let (mut rest, mut commits) = (&bytes[..], Vec::new());
        for seq in number * PACK..(number + 1) * PACK {
            let Some((len, after)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            let len = usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX);
            let Some((commit, after)) = after.split_at_checked(len) else { return Ok(None) };
            let Ok(commit) = Commit::parse(seq, commit.to_vec()) else { return Ok(None) };
            commits.push(commit);
            rest = after;
        }
        if commits.first().map(Commit::hash) != first.map(Commit::hash) {
            return Ok(None);
        }
        Ok(Some(commits.split_off(1)))
    }
}

fn pack_name(workspace: Id, number: u64) -> String {
    format!("{workspace}/pack/{number:08}")
}
