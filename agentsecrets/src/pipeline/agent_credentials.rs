//! The credentials of one agent, ready for requests: values, placeholders, and the patterns that its
//! responses are searched for. They are built anew when the policy or the store changes.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::credentials::Values;
use crate::credentials::minter::Minter;
use crate::credentials::runtime::RuntimeCredentials;
use crate::inject::BodyBudget;
use crate::inject::placeholder::Placeholders;
use crate::policy::Agent;
use crate::redact::patterns::Patterns;
use crate::store::refresh_tokens::RefreshTokenStore;
use crate::store::{Store, StoreError};
use crate::types::name::{AgentName, Environment, Project, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::sync::MutexExt;

/// The credentials of one agent.
pub struct AgentCredentials {
    /// Its values, which only a grant opens.
    pub values: Values,
    /// The placeholders that stand for them.
    pub vocabulary: Arc<Placeholders>,
    /// Memory for request bodies that are read whole.
    pub room: BodyBudget,
    /// The patterns that responses are searched for.
    pub patterns: Arc<Patterns>,
    /// The credentials obtained at run time.
    pub runtime: Arc<RuntimeCredentials>,
}

/// The credentials of every agent.
pub struct CredentialCache {
    store: Arc<dyn Store>,
    project: Project,
    environment: Environment,
    current: ArcSwap<HashMap<AgentName, Arc<AgentCredentials>>>,
    /// The last that each agent had, good or not any more.
    previous: std::sync::Mutex<HashMap<AgentName, Arc<AgentCredentials>>>,
    load_lock: Mutex<()>,
    runtimes: std::sync::Mutex<HashMap<AgentName, Arc<RuntimeCredentials>>>,
    minter: Arc<Minter>,
}

impl CredentialCache {
    /// Credentials from `store`. Replacements of stored secrets at run time are kept in `rotated`.
    pub fn new(
        store: Arc<dyn Store>,
        project: Project,
        environment: Environment,
        rotated: RefreshTokenStore,
    ) -> Self {
        let minter = Arc::new(Minter::new(rotated, project.clone(), environment.clone()));
        let (current, load_lock) = (ArcSwap::default(), Mutex::default());
        let (previous, runtimes) = (std::sync::Mutex::default(), std::sync::Mutex::default());
        Self { store, project, environment, current, previous, load_lock, runtimes, minter }
    }

    /// The minter of credentials that are made from others.
    pub fn minter(&self) -> &Arc<Minter> {
        &self.minter
    }

    /// Forgets what was read: the policy or the store changed.
    pub fn invalidate(&self) {
        self.current.store(Arc::default());
    }

    /// The credentials of `agent`.
    pub async fn get(&self, agent: &Agent) -> Result<Arc<AgentCredentials>, Rejection> {
        if let Some(credentials) = self.current.load().get(agent.name()) {
            return Ok(credentials.clone());
        }
        let _one_at_a_time = self.load_lock.lock().await;
        let before = self.current.load_full();
        if let Some(credentials) = before.get(agent.name()) {
            return Ok(credentials.clone());
        }
        let credentials = Arc::new(self.fill(agent).await.map_err(|error| {
            Rejection::new(ErrorCode::StoreUnavailable, format!("the secret store cannot be read: {error}"))
        })?);
        self.retire(agent.name(), &credentials)?;
        let mut after = HashMap::clone(&before);
        after.insert(agent.name().clone(), credentials.clone());
        // If the store changed meanwhile, what was just read may be old: leave it out of the cache.
        self.current.compare_and_swap(&before, Arc::new(after));
        Ok(credentials)
    }

    /// Keeps searching for values that the agent's last credentials had and `next` lacks. Until that has
    /// succeeded `next` does not become the last, so that a retry leaves nothing out.
    fn retire(&self, agent: &AgentName, next: &Arc<AgentCredentials>) -> Result<(), Rejection> {
        let mut last = self.previous.lock_ignoring_poison();
        if let Some(before) = last.get(agent) {
            before
                .values
                .gone_from(&next.values)
                .into_iter()
                .try_for_each(|value| next.runtime.retire(value))?;
        }
        last.insert(agent.clone(), next.clone());
        Ok(())
    }

    async fn fill(&self, agent: &Agent) -> Result<AgentCredentials, StoreError> {
        let names: Vec<SecretName> = agent.secrets().cloned().collect();
        let stored = agent.stored_secrets();
        let (store, project, environment) =
            (self.store.clone(), self.project.clone(), self.environment.clone());
        let runtime = {
            let mut runtimes = self.runtimes.lock_ignoring_poison();
            runtimes.entry(agent.name().clone()).or_default().clone()
        };
        let is_person = agent.is_operator();
        let fill = move || {
            let mut credentials = fill(&*store, &project, &environment, names, &stored, runtime)?;
            if is_person {
                // A person says outright what is meant: text that quotes a placeholder is not.
                credentials.vocabulary = Arc::new(Placeholders::empty());
            }
            Ok(credentials)
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
    runtime: Arc<RuntimeCredentials>,
) -> Result<AgentCredentials, StoreError> {
    let mut own: HashMap<SecretName, Option<String>> =
        store.list(project, environment)?.into_iter().map(|entry| (entry.name, entry.placeholder)).collect();
    let values = Values::load(store, project, environment, stored.iter())?;
    let vocabulary = Placeholders::new(names.into_iter().map(|name| {
        let placeholder = own.remove(&name).flatten();
        (name, placeholder)
    }));
    let patterns = Patterns::with(values.to_redact(), runtime.dynamic_patterns());
    Ok(AgentCredentials {
        patterns,
        values,
        vocabulary: Arc::new(vocabulary),
        room: BodyBudget::default(),
        runtime,
    })
}
