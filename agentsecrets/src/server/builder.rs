//! Builds the pipeline. Every process that sends requests uses it: the interceptor, the explicit proxy, and a
//! single request of a person.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::approval::ApprovalQueue;
use crate::audit::Log;
use crate::authz::Capabilities;
use crate::authz::trust::Trust;
use crate::config::Config;
use crate::dns::resolver::Resolver;
use crate::identity::process_details;
use crate::identity::process_details::ProcessDetails;
use crate::pipeline::Pipeline;
use crate::pipeline::agent_credentials::CredentialCache;
use crate::policy::project_restriction::ProjectRestriction;
use crate::policy::watch::PolicyWatcher;
use crate::store::helper::StoreHelper;
use crate::store::refresh_tokens::RefreshTokenStore;
use crate::store::{self, Store};
use crate::sys;
use crate::sys::home::Home;
use crate::tls::verify;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::{Environment, Project};
use crate::upstream::client::{Upstream, UpstreamTimeouts};

const STORE_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The parts of a pipeline, from which each worker builds its own.
pub(crate) struct PipelineBuilder {
    pub(crate) config: Config,
    pub(crate) policy: Arc<PolicyWatcher>,
    /// Sessions, tokens and trust, which bound callers beside the policy.
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) approvals: Arc<ApprovalQueue>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) audit: Arc<Log>,
    pub(crate) upstream_tls: Arc<ClientConfig>,
    /// The file of rotated refresh tokens, which take the place of stored ones.
    pub(crate) refresh_tokens: PathBuf,
    pub(crate) project: Project,
    pub(crate) environment: Environment,
}

impl PipelineBuilder {
    /// Opens the parts for a long-running process that serves one project and environment. The policy of
    /// `home`, reduced by `restriction`, and its stores are watched; `look` reads process details. `confine`
    /// gives up the privileges that only the store helper needs, before any file is opened. The process must
    /// have one thread.
    pub(crate) fn for_process(
        home: &Home,
        scope: (&Project, &Environment),
        restriction: &ProjectRestriction,
        look: Option<Arc<dyn ProcessDetails>>,
        confine: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let config = load_config(home)?;
        let mut helper = StoreHelper::start(&config.stores, home, scope, sys::conceal)
            .context("cannot start the store helper")?;
        confine()?;
        let (store, _) = store::open_unattended(&config.stores, home, |kind| helper.store(kind))
            .map_err(|error| Failure::new(Exit::Locked, error))?;
        let policy = PolicyWatcher::open_restricted(&home.policy(), restriction.clone())
            .context("the policy is not valid")
            .map_err(|failure| failure.hint("agentsecrets policy check"))?;
        Self::build(config, home, scope, Arc::new(policy), Arc::new(store), look)
    }

    /// Uses this policy and this store in place of those of `home`.
    pub(crate) fn with_policy_and_store(
        home: &Home,
        scope: (&Project, &Environment),
        policy: Arc<PolicyWatcher>,
        store: Arc<dyn Store>,
    ) -> Result<Self, Failure> {
        Self::build(load_config(home)?, home, scope, policy, store, process_details())
    }

    fn build(
        config: Config,
        home: &Home,
        (project, environment): (&Project, &Environment),
        policy: Arc<PolicyWatcher>,
        store: Arc<dyn Store>,
        look: Option<Arc<dyn ProcessDetails>>,
    ) -> Result<Self, Failure> {
        let audit = Log::open(&home.audit()).context("the audit log cannot be written")?;
        let (project, environment) = (project.clone(), environment.clone());
        let (upstream_tls, rotated) = (upstream_tls()?, home.rotated());
        let scope = (&project, &environment);
        let capabilities = capabilities(home, scope, None, &config, look)?;
        let approvals = Arc::new(ApprovalQueue::new(home.approvals()));
        Ok(Self {
            config,
            policy,
            capabilities,
            approvals,
            store,
            audit,
            upstream_tls,
            refresh_tokens: rotated,
            project,
            environment,
        })
    }

    /// The same parts for a person, whom no session, token or trust bounds.
    #[must_use]
    pub(crate) fn for_operator(self) -> Self {
        Self { capabilities: Arc::default(), ..self }
    }

    /// Builds the pipeline and its credential cache. `forbidden` are our own sockets, which are never
    /// dialled.
    pub(crate) fn pipeline(
        &self,
        forbidden: Vec<SocketAddr>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> (Arc<Pipeline>, Arc<CredentialCache>) {
        let timeouts = self.config.timeouts;
        let upstream_timeouts = UpstreamTimeouts { connect: timeouts.connect, response: timeouts.answer };
        let upstream = Upstream::new(self.upstream_tls.clone(), Arc::new(Resolver::system()), forbidden);
        let rotated = RefreshTokenStore::at(&self.refresh_tokens);
        let (project, environment) = (self.project.clone(), self.environment.clone());
        let credentials = Arc::new(CredentialCache::new(self.store.clone(), project, environment, rotated));
        let pipeline = Pipeline {
            policy: self.policy.clone(),
            capabilities: self.capabilities.clone(),
            approvals: self.approvals.clone(),
            credentials: credentials.clone(),
            guess_detector: Arc::default(),
            upstream: Arc::new(upstream.with_timeouts(upstream_timeouts)),
            audit: self.audit.clone(),
            environment: self.environment.clone(),
            timeouts,
            stop,
            tasks,
        };
        (Arc::new(pipeline), credentials)
    }
}

/// Opens the sessions, tokens and trust of `home` for one project and environment. Agents of a run lose all
/// rights when its session, `run`, ends.
pub(crate) fn capabilities(
    home: &Home,
    (project, environment): (&Project, &Environment),
    run: Option<Arc<str>>,
    config: &Config,
    look: Option<Arc<dyn ProcessDetails>>,
) -> Result<Arc<Capabilities>, Failure> {
    let trust = Trust::open(&home.trust(), config.require_trust, look);
    let trust = trust.map_err(|error| Failure::new(Exit::Failure, error).hint("agentsecrets trust list"))?;
    let capabilities =
        Capabilities::open(home, project, environment, run).context("sessions and tokens cannot be read")?;
    Ok(Arc::new(capabilities.trusting(Arc::new(trust))))
}

fn load_config(home: &Home) -> Result<Config, Failure> {
    Config::load(&home.config())
        .context("the configuration is not valid")
        .map_err(|failure| failure.hint("agentsecrets doctor"))
}

/// The TLS configuration for upstream servers: the system's roots and those in `AGENTSECRETS_UPSTREAM_CA`.
pub(crate) fn upstream_tls() -> Result<Arc<ClientConfig>, Failure> {
    let roots = match std::env::var_os("AGENTSECRETS_UPSTREAM_CA") {
        Some(path) if !path.is_empty() => {
            verify::roots_from_pem(path.as_ref()).context("AGENTSECRETS_UPSTREAM_CA cannot be used")?
        }
        _ => Vec::new(),
    };
    verify::client_config(&roots).context("cannot verify servers' certificates")
}

/// Empties the credential cache whenever the policy or the store changes. Two tasks: a store that hangs must
/// not delay the policy's changes.
pub(crate) fn watch(policy: &PolicyWatcher, store: Arc<dyn Store>, credentials: &Arc<CredentialCache>) {
    tokio::spawn(watch_policy(policy.subscribe(), credentials.clone()));
    tokio::spawn(watch_store(store, credentials.clone()));
}

async fn watch_policy(mut policy: tokio::sync::watch::Receiver<u64>, credentials: Arc<CredentialCache>) {
    while policy.changed().await.is_ok() {
        credentials.invalidate();
    }
}

async fn watch_store(store: Arc<dyn Store>, credentials: Arc<CredentialCache>) {
    let mut version = store_version(&store).await;
    let mut interval = tokio::time::interval(STORE_POLL_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = store_version(&store).await;
        // An unreadable store invalidates everything read before: it may have changed and changed back
        // between two polls.
        if now.is_none() || now != version {
            version = now;
            credentials.invalidate();
        }
    }
}

/// Reads the store's version on a blocking thread; `None` if it cannot be read.
async fn store_version(store: &Arc<dyn Store>) -> Option<u64> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.version().ok()).await.ok().flatten()
}
