//! What one agent may spend, made ready: the values, the placeholders that stand for them, and the
//! patterns that its answers are searched for. Made anew when the policy or the store changes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::credentials::Values;
use crate::credentials::minter::Minter;
use crate::credentials::runtime::Purse;
use crate::inject::Room;
use crate::inject::placeholder::Vocabulary;
use crate::policy::Agent;
use crate::redact::patterns::Patterns;
use crate::store::refresh_tokens::Rotated;
use crate::store::{Store, StoreError};
use crate::types::name::{AgentName, Environment, Project, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};

/// One agent's wallet.
pub struct Wallet {
    /// Its values, which only a grant opens.
    pub values: Values,
    /// The placeholders that stand for them.
    pub vocabulary: Arc<Vocabulary>,
    /// What the bodies of its requests may take while they are read.
    pub room: Room,
    /// What its answers are searched for.
    pub patterns: Arc<Patterns>,
    /// What it came to hold at run time.
    pub purse: Arc<Purse>,
}

/// Every agent's wallet.
pub struct Wallets {
    store: Arc<dyn Store>,
    project: Project,
    environment: Environment,
    ready: ArcSwap<HashMap<AgentName, Arc<Wallet>>>,
    /// The last that each agent had, good or not any more.
    last: std::sync::Mutex<HashMap<AgentName, Arc<Wallet>>>,
    filling: Mutex<()>,
    purses: std::sync::Mutex<HashMap<AgentName, Arc<Purse>>>,
    minter: Arc<Minter>,
}

impl Wallets {
    /// Wallets filled from `store`.
    /// What replaces a stored secret at run time is kept in `rotated`.
    pub fn new(store: Arc<dyn Store>, project: Project, environment: Environment, rotated: Rotated) -> Self {
        let minter = Arc::new(Minter::new(rotated, project.clone(), environment.clone()));
        let (ready, filling) = (ArcSwap::default(), Mutex::default());
        let (last, purses) = (std::sync::Mutex::default(), std::sync::Mutex::default());
        Self { store, project, environment, ready, last, filling, purses, minter }
    }

    /// What makes the credentials that are made from others.
    pub fn minter(&self) -> &Arc<Minter> {
        &self.minter
    }

    /// Forgets what was read: the policy or the store changed.
    pub fn forget(&self) {
        self.ready.store(Arc::default());
    }

    /// The wallet of `agent`.
    pub async fn of(&self, agent: &Agent) -> Result<Arc<Wallet>, Rejection> {
        if let Some(wallet) = self.ready.load().get(agent.name()) {
            return Ok(wallet.clone());
        }
        let _one_at_a_time = self.filling.lock().await;
        let before = self.ready.load_full();
        if let Some(wallet) = before.get(agent.name()) {
            return Ok(wallet.clone());
        }
        let wallet = Arc::new(self.fill(agent).await.map_err(|error| {
            Rejection::new(
                ErrorCode::StoreUnavailable,
                "",
                format!("the secret store cannot be read: {error}"),
            )
        })?);
        self.retire(agent.name(), &wallet)?;
        let mut after = HashMap::clone(&before);
        after.insert(agent.name().clone(), wallet.clone());
        // If the store changed meanwhile, what was just read may be old: leave it out of the cache.
        self.ready.compare_and_swap(&before, Arc::new(after));
        Ok(wallet)
    }

    /// What the agent's last wallet held and `next` does not is searched for all the same. Until it is, `next` is not
    /// the last, so that nothing is left out when this is tried again.
    fn retire(&self, agent: &AgentName, next: &Arc<Wallet>) -> Result<(), Rejection> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = last.get(agent) {
            before
                .values
                .gone_from(&next.values)
                .into_iter()
                .try_for_each(|value| next.purse.retire(value))?;
        }
        last.insert(agent.clone(), next.clone());
        Ok(())
    }

    async fn fill(&self, agent: &Agent) -> Result<Wallet, StoreError> {
        let names: Vec<SecretName> = agent.secrets().cloned().collect();
        let stored = agent.stored();
        let (store, project, environment) =
            (self.store.clone(), self.project.clone(), self.environment.clone());
        let purse = {
            let mut purses = self.purses.lock().unwrap_or_else(PoisonError::into_inner);
            purses.entry(agent.name().clone()).or_default().clone()
        };
        let is_person = agent.is_the_person();
        let fill = move || {
            let mut wallet = fill(&*store, &project, &environment, names, &stored, purse)?;
            if is_person {
                // A person says outright what is meant: text that quotes a placeholder is not.
                wallet.vocabulary = Arc::new(Vocabulary::none());
            }
            Ok(wallet)
        };
        tokio::task::spawn_blocking(fill).await.unwrap_or_else(|error| Err(StoreError::Io(error.to_string())))
    }
}

/// Reads the `stored` of an agent that may name these `names` from `store`. Blocks.
pub fn fill(
    store: &dyn Store,
    project: &Project,
    environment: &Environment,
    names: Vec<SecretName>,
    stored: &[SecretName],
    purse: Arc<Purse>,
) -> Result<Wallet, StoreError> {
    let mut own: HashMap<SecretName, Option<String>> =
        store.list(project, environment)?.into_iter().map(|entry| (entry.name, entry.placeholder)).collect();
    let values = Values::load(store, project, environment, stored.iter())?;
    let vocabulary = Vocabulary::new(names.into_iter().map(|name| {
        let placeholder = own.remove(&name).flatten();
        (name, placeholder)
    }));
    let patterns = Patterns::with(values.to_redact(), purse.additions());
    Ok(Wallet { patterns, values, vocabulary: Arc::new(vocabulary), room: Room::default(), purse })
}
