//! The stages put together, for every process that has them: the interceptor, the explicit proxy, and a
//! person's single request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::approval::Desk;
use crate::audit::Log;
use crate::authz::Capabilities;
use crate::authz::trust::Trust;
use crate::config::Config;
use crate::dns::resolver::Resolver;
use crate::identity::look_closer;
use crate::identity::process_details::Look;
use crate::pipeline::Pipeline;
use crate::pipeline::agent_credentials::Wallets;
use crate::policy::project_restriction::Narrow;
use crate::policy::watch::Live;
use crate::store::helper::Keeper;
use crate::store::refresh_tokens::Rotated;
use crate::store::{self, Store};
use crate::sys;
use crate::sys::home::Home;
use crate::tls::verify;
use crate::types::failure::{Exit, Failure};
use crate::types::name::{Environment, Project};
use crate::upstream::client::{Patience, Upstream};

/// How often the store is looked at for changed secrets.
const STORE_INTERVAL: Duration = Duration::from_millis(500);

/// What the stages are made of.
pub struct Stages {
    /// How long peers may take.
    pub config: Config,
    /// The policy in force.
    pub policy: Arc<Live>,
    /// What bounds callers beside it.
    pub capabilities: Arc<Capabilities>,
    /// What waits for a person.
    pub approvals: Arc<Desk>,
    /// What is spent.
    pub store: Arc<dyn Store>,
    /// The log.
    pub audit: Arc<Log>,
    /// How servers prove themselves.
    pub upstream_tls: Arc<ClientConfig>,
    /// Where what replaces a stored secret is kept.
    pub rotated: PathBuf,
    /// Whose secrets.
    pub project: Project,
    /// Which secrets.
    pub environment: Environment,
}

impl Stages {
    /// Those of a process that lasts and judges programs, for a project and an environment: the policy of
    /// `home`, of which `narrow` is left, and its stores are followed; `look` looks at programs. What
    /// only the keeper of stores needs is given up by `confine`, before any file is opened. The process must have one thread.
    pub fn lasting(
        home: &Home,
        whose: (&Project, &Environment),
        narrow: &Narrow,
        look: Option<Arc<dyn Look>>,
        confine: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let config = configuration(home)?;
        let mut keeper = Keeper::start(&config.stores, home, whose, sys::conceal)
            .map_err(|error| failed("cannot start the keeper of stores", &error))?;
        confine()?;
        let (store, _) = store::follow(&config.stores, home, |kind| keeper.store(kind))
            .map_err(|error| Failure::new(Exit::Locked, error))?;
        let policy = Live::open_narrowed(&home.policy(), narrow.clone())
            .map_err(|error| failed("the policy is not valid", &error).hint("agentsecrets policy check"))?;
        Self::with(config, home, whose, Arc::new(policy), Arc::new(store), look)
    }

    /// The same with this policy and this store.
    pub fn of(
        home: &Home,
        whose: (&Project, &Environment),
        policy: Arc<Live>,
        store: Arc<dyn Store>,
    ) -> Result<Self, Failure> {
        Self::with(configuration(home)?, home, whose, policy, store, look_closer())
    }

    fn with(
        config: Config,
        home: &Home,
        (project, environment): (&Project, &Environment),
        policy: Arc<Live>,
        store: Arc<dyn Store>,
        look: Option<Arc<dyn Look>>,
    ) -> Result<Self, Failure> {
        let audit =
            Log::open(&home.audit()).map_err(|error| failed("the audit log cannot be written", &error))?;
        let (project, environment) = (project.clone(), environment.clone());
        let (upstream_tls, rotated) = (upstream_tls()?, home.rotated());
        let whose = (&project, &environment);
        let capabilities = capabilities(home, whose, None, &config, look)?;
        let approvals = Arc::new(Desk::at(home.approvals()));
        Ok(Self {
            config,
            policy,
            capabilities,
            approvals,
            store,
            audit,
            upstream_tls,
            rotated,
            project,
            environment,
        })
    }

    /// The same for the person, whom nothing binds that programs were given.
    #[must_use]
    pub fn unbounded(self) -> Self {
        Self { capabilities: Arc::default(), ..self }
    }

    /// The pipeline, and the wallets in it. `forbidden` are our own sockets, which are never dialled.
    pub fn pipeline(
        &self,
        forbidden: Vec<SocketAddr>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> (Arc<Pipeline>, Arc<Wallets>) {
        let timeouts = self.config.timeouts;
        let patience = Patience { connect: timeouts.connect, answer: timeouts.answer };
        let upstream = Upstream::new(self.upstream_tls.clone(), Arc::new(Resolver::system()), forbidden);
        let rotated = Rotated::at(&self.rotated);
        let (project, environment) = (self.project.clone(), self.environment.clone());
        let wallets = Arc::new(Wallets::new(self.store.clone(), project, environment, rotated));
        let pipeline = Pipeline {
            policy: self.policy.clone(),
            capabilities: self.capabilities.clone(),
            approvals: self.approvals.clone(),
            wallets: wallets.clone(),
            alarms: Arc::default(),
            upstream: Arc::new(upstream.with_patience(patience)),
            audit: self.audit.clone(),
            environment: self.environment.clone(),
            timeouts,
            stop,
            tasks,
        };
        (Arc::new(pipeline), wallets)
    }
}

/// What bounds the programs of `home`, which `look` looks at, as they spend the secrets of a project and
/// environment. Those of a run have nothing left when its session, `run`, ends.
pub fn capabilities(
    home: &Home,
    (project, environment): (&Project, &Environment),
    run: Option<Arc<str>>,
    config: &Config,
    look: Option<Arc<dyn Look>>,
) -> Result<Arc<Capabilities>, Failure> {
    let trust = Trust::open(&home.trust(), config.require_trust, look);
    let trust = trust.map_err(|error| Failure::new(Exit::Failure, error).hint("agentsecrets trust list"))?;
    let given = Capabilities::open(home, project, environment, run)
        .map_err(|error| failed("what programs were given cannot be read", &error))?;
    Ok(Arc::new(given.trusting(Arc::new(trust))))
}

fn configuration(home: &Home) -> Result<Config, Failure> {
    Config::load(&home.config())
        .map_err(|error| failed("the configuration is not valid", &error).hint("agentsecrets doctor"))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("{what}: {error}"))
}

/// How servers prove themselves: by the system's roots, and those that `AGENTSECRETS_UPSTREAM_CA` names.
pub fn upstream_tls() -> Result<Arc<ClientConfig>, Failure> {
    let roots = match std::env::var_os("AGENTSECRETS_UPSTREAM_CA") {
        Some(path) if !path.is_empty() => verify::roots_from_pem(path.as_ref())
            .map_err(|error| failed("AGENTSECRETS_UPSTREAM_CA cannot be used", &error))?,
        _ => Vec::new(),
    };
    verify::client_config(&roots).map_err(|error| failed("cannot verify servers' certificates", &error))
}

/// From here on empties the wallets when the policy or the store changes. Each by itself: a store that hangs
/// must not keep the policy's changes waiting.
pub fn watch(policy: &Live, store: Arc<dyn Store>, wallets: &Arc<Wallets>) {
    tokio::spawn(watch_policy(policy.subscribe(), wallets.clone()));
    tokio::spawn(watch_store(store, wallets.clone()));
}

async fn watch_policy(mut policy: tokio::sync::watch::Receiver<u64>, wallets: Arc<Wallets>) {
    while policy.changed().await.is_ok() {
        wallets.forget();
    }
}

async fn watch_store(store: Arc<dyn Store>, wallets: Arc<Wallets>) {
    let mut version = generation(&store).await;
    let mut interval = tokio::time::interval(STORE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = generation(&store).await;
        // While it cannot be read, nothing that was read before is good: between two looks it may have been
        // put back and taken away again.
        if now.is_none() || now != version {
            version = now;
            wallets.forget();
        }
    }
}

/// The store's generation, asked on a thread that may wait; none while it cannot be read.
async fn generation(store: &Arc<dyn Store>) -> Option<u64> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.version().ok()).await.ok().flatten()
}
