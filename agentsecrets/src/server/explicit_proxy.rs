//! Runs the explicit proxy: one process for each home, on a loopback port. It refuses to start beside another
//! one.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::identity::socket::{LocalPeers, SocketAddrs};
use crate::intercept::connection_limit::ConnectionLimit;
use crate::pipeline::{ExplicitProxy, Interceptor};
use crate::policy::project_restriction::ProjectRestriction;
use crate::server::builder::{PipelineBuilder, watch};
use crate::server::sandbox::proxy::ProxySandbox;
use crate::server::socket_activation;
use crate::sys::files;
use crate::sys::home::Home;
use crate::sys::{self, ShutdownListener};
use crate::tls;
use crate::tls::authority::CertificateAuthority;
use crate::tls::leaf::LeafCertCache;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::{Environment, Project};

pub(crate) struct ProxyConfig {
    pub(crate) home: Home,
    pub(crate) project: Project,
    pub(crate) environment: Environment,
    /// The project file's restriction of the policy.
    pub(crate) restriction: ProjectRestriction,
    /// The port on 127.0.0.1; 0 takes any free port.
    pub(crate) port: u16,
}

/// A running proxy, as `proxy.json` describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProxyInfo {
    pub(crate) pid: u32,
    pub(crate) port: u16,
}

/// Claims `proxy.json` for the one proxy of a home. The proxy holds the lock file beside it, so that a stale
/// `proxy.json` is never believed. The lock is a separate file because a file under a mandatory lock cannot
/// be read.
pub(crate) struct ProxyLock {
    path: PathBuf,
    _lock: std::fs::File,
}

impl ProxyLock {
    pub(crate) fn path(home: &Home) -> PathBuf {
        home.runtime().join("proxy.json")
    }

    /// Takes the lock of `home`, or returns the proxy that holds it.
    pub(crate) fn claim(home: &Home) -> io::Result<Result<Self, Option<ProxyInfo>>> {
        let path = Self::path(home);
        let lock = files::append(&path.with_extension("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Ok(Self { path, _lock: lock })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(Err(read_info(&path))),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// The proxy that runs for `home`, if one does.
    pub(crate) fn find_running(home: &Home) -> io::Result<Option<ProxyInfo>> {
        if !Self::path(home).exists() {
            return Ok(None);
        }
        Ok(Self::claim(home)?.err().flatten())
    }

    fn write_info(&self, running: ProxyInfo) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec(&running)?)
    }
}

fn read_info(path: &std::path::Path) -> Option<ProxyInfo> {
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Serves until a signal ends it, on systemd's socket if there is one. `prepare` gets the authority's
/// certificate (PEM) while every file is still writable; `ready` gets its result and the port once
/// connections are accepted. The process must have one thread.
pub(crate) fn serve<T>(
    config: &ProxyConfig,
    prepare: impl FnOnce(&str) -> io::Result<T>,
    ready: impl FnOnce(ProxyInfo, T) -> io::Result<()>,
) -> Result<(), Failure> {
    sys::conceal().context("cannot protect our own memory")?;
    let descriptors = sys::raise_descriptor_limit().context("cannot raise our own limits")?;
    let home = &config.home;
    let instance = claim_with_retries(home)?;
    let listener = match socket_activation::passed_listener()? {
        Some(listener) => listener,
        None => bind(config.port)?,
    };
    let address = listener.local_addr().context("cannot listen")?;
    let authority = CertificateAuthority::generate().context("cannot make the certificate authority")?;
    let prepared = prepare(authority.pem()).context("the proxy's files cannot be written")?;
    // Create them before the sandbox: Landlock cannot permit a folder that does not exist.
    for folder in [home.audit(), home.capabilities(), home.rotated(), home.approvals()] {
        files::private_folder(&folder).context(format!("{} cannot be made", folder.display()))?;
    }
    let running = ProxyInfo { pid: std::process::id(), port: address.port() };
    instance.write_info(running).context("cannot announce the proxy")?;
    let sandbox = ProxySandbox::start()?;
    let scope = (&config.project, &config.environment);
    let builder =
        PipelineBuilder::for_process(home, scope, &config.restriction, sandbox.process_details(), || {
            sandbox.confine(home)
        })?;
    let leaves = LeafCertCache::new(authority, tls::provider()).context("cannot make certificates")?;
    ready(running, prepared).context("cannot announce the proxy")?;
    let callers = sandbox.restrict_system_calls()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start threads")?;
    let served = runtime.block_on(serve_connections(&builder, leaves, callers, listener, descriptors));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.context("cannot serve")
}

async fn serve_connections(
    builder: &PipelineBuilder,
    leaves: LeafCertCache,
    callers: LocalPeers,
    listener: TcpListener,
    descriptors: u64,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (pipeline, credentials) = builder.pipeline(vec![address], stop.clone(), tasks.clone());
    watch(&builder.policy, builder.store.clone(), &credentials);
    let explicit = Arc::new(ExplicitProxy {
        intercept: Arc::new(Interceptor { pipeline, leaves: Arc::new(leaves) }),
        neighbours: callers,
        project: builder.project.clone(),
    });
    let connections = ConnectionLimit::for_descriptors(descriptors);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut ending = ShutdownListener::listen()?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.asked() => break,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(permit) = connections.enter() else { continue };
                let ends = SocketAddrs { theirs: remote, ours: address };
                tasks.spawn(explicit.clone().connection(stream, ends, permit));
            }
            Err(error) => {
                // Most likely no descriptor is left; the backlog keeps the connection.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    stop.cancel();
    tasks.close();
    // Requests in flight may finish; the rest are aborted, and their records say so.
    let _ = tokio::time::timeout(builder.config.timeouts.drain, tasks.wait()).await;
    Ok(())
}

/// Takes the lock of `home`. It retries, because `proxy status` holds the lock for a moment too.
fn claim_with_retries(home: &Home) -> Result<ProxyLock, Failure> {
    let mut tries = 10;
    loop {
        tries -= 1;
        match ProxyLock::claim(home).context("cannot claim this home")? {
            Ok(instance) => return Ok(instance),
            Err(running) if tries == 0 => return Err(already_running(running)),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn bind(port: u16) -> Result<TcpListener, Failure> {
    sys::listen((Ipv4Addr::LOCALHOST, port).into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(
            Exit::Failure,
            format!("another program listens on 127.0.0.1:{port}"),
        )
        .hint(format!("choose another port with --port, or find that program with: {}", sys::LISTENERS)),
        _ => Failure::new(Exit::Failure, format!("cannot listen on 127.0.0.1:{port}: {error}")),
    })
}

fn already_running(running: Option<ProxyInfo>) -> Failure {
    let what = match running {
        Some(ProxyInfo { pid, port }) => format!("the proxy runs already: 127.0.0.1:{port}, process {pid}"),
        None => "another proxy is just starting".to_owned(),
    };
    Failure::new(Exit::Failure, what).hint("to end it, run: agentsecrets proxy stop")
}
