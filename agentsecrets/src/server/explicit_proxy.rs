//! The explicit proxy as a process: one for each home, on a port of the loopback.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::identity::socket::{Ends, Neighbours};
use crate::intercept::connection_limit::Room;
use crate::pipeline::{Explicit, Intercept};
use crate::policy::project_restriction::Narrow;
use crate::server::builder::{Stages, watch};
use crate::server::sandbox::proxy::Fence;
use crate::server::socket_activation;
use crate::sys::files;
use crate::sys::home::Home;
use crate::sys::{self, Ending};
use crate::tls;
use crate::tls::authority::Authority;
use crate::tls::leaf::Leaves;
use crate::types::failure::{Exit, Failure};
use crate::types::name::{Environment, Project};

/// What to serve, and where.
pub struct Wanted {
    /// Where our files are.
    pub home: Home,
    /// Whose secrets.
    pub project: Project,
    /// Which secrets.
    pub environment: Environment,
    /// What the project's own file leaves of the policy.
    pub narrow: Narrow,
    /// The port on 127.0.0.1; 0 for any.
    pub port: u16,
}

/// A running proxy, as its file describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Its port.
    pub port: u16,
}

/// The file of the one proxy of a home. Whoever holds the lock beside it is that proxy, so that a file which
/// was left behind is never taken for one. The lock is a file of its own: where locks are mandatory, what is
/// locked cannot be read.
pub struct Instance {
    path: PathBuf,
    _lock: std::fs::File,
}

impl Instance {
    /// Where it is.
    pub fn path(home: &Home) -> PathBuf {
        home.runtime().join("proxy.json")
    }

    /// Becomes the proxy of `home`, or tells which process is.
    pub fn claim(home: &Home) -> io::Result<Result<Self, Option<Running>>> {
        let path = Self::path(home);
        let lock = files::append(&path.with_extension("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Ok(Self { path, _lock: lock })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(Err(read(&path))),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// The proxy that runs for `home`, if one does.
    pub fn running(home: &Home) -> io::Result<Option<Running>> {
        if !Self::path(home).exists() {
            return Ok(None);
        }
        Ok(Self::claim(home)?.err().flatten())
    }

    fn announce(&self, running: Running) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec(&running)?)
    }
}

fn read(path: &std::path::Path) -> Option<Running> {
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Serves until it is told to end, by the socket that systemd passed, else by one of our own. `prepare` is
/// given the authority, in PEM, while any file can be written; `ready` is told what that yielded, and the port,
/// once connections are taken. The process must have one thread.
pub fn serve<T>(
    wanted: &Wanted,
    prepare: impl FnOnce(&str) -> io::Result<T>,
    ready: impl FnOnce(Running, T) -> io::Result<()>,
) -> Result<(), Failure> {
    sys::conceal().map_err(|error| failed("cannot protect our own memory", error))?;
    let descriptors =
        sys::raise_descriptor_limit().map_err(|error| failed("cannot raise our own limits", error))?;
    let home = &wanted.home;
    let instance = claim(home)?;
    let listener = match socket_activation::passed()? {
        Some(listener) => listener,
        None => bind(wanted.port)?,
    };
    let address = listener.local_addr().map_err(|error| failed("cannot listen", error))?;
    let authority =
        Authority::generate().map_err(|error| failed("cannot make the certificate authority", error))?;
    let prepared =
        prepare(authority.pem()).map_err(|error| failed("the proxy's files cannot be written", error))?;
    // Made now: what is not there cannot be opened to us.
    for folder in [home.audit(), home.capabilities(), home.rotated(), home.approvals()] {
        files::private_folder(&folder)
            .map_err(|error| failed(&format!("{} cannot be made", folder.display()), error))?;
    }
    let running = Running { pid: std::process::id(), port: address.port() };
    instance.announce(running).map_err(|error| failed("cannot say that we run", error))?;
    let fence = Fence::begin()?;
    let whose = (&wanted.project, &wanted.environment);
    let stages = Stages::lasting(home, whose, &wanted.narrow, fence.look(), || fence.confine(home))?;
    let leaves =
        Leaves::new(authority, tls::provider()).map_err(|error| failed("cannot make certificates", error))?;
    ready(running, prepared).map_err(|error| failed("cannot say that we run", error))?;
    let neighbours = fence.close()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed("cannot start threads", error))?;
    let served = runtime.block_on(serve_connections(&stages, leaves, neighbours, listener, descriptors));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map_err(|error| failed("cannot serve", error))
}

async fn serve_connections(
    stages: &Stages,
    leaves: Leaves,
    neighbours: Neighbours,
    listener: TcpListener,
    descriptors: u64,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (pipeline, wallets) = stages.pipeline(vec![address], stop.clone(), tasks.clone());
    watch(&stages.policy, stages.store.clone(), &wallets);
    let explicit = Arc::new(Explicit {
        intercept: Arc::new(Intercept { pipeline, leaves: Arc::new(leaves) }),
        neighbours,
        project: stages.project.clone(),
    });
    let room = Room::for_descriptors(descriptors);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut ending = Ending::listen()?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.asked() => break,
        };
        match accepted {
            Ok((stream, theirs)) => {
                let Some(place) = room.enter() else { continue };
                let ends = Ends { theirs, ours: address };
                tasks.spawn(explicit.clone().connection(stream, ends, place));
            }
            Err(error) => {
                // Out of descriptors, most likely: the backlog waits for us.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    stop.cancel();
    tasks.close();
    // What is under way may finish; what does not is broken off, and its record says so.
    let _ = tokio::time::timeout(stages.config.timeouts.drain, tasks.wait()).await;
    Ok(())
}

/// Becomes the proxy of `home`. Whoever only looks for one holds the lock for a moment too.
fn claim(home: &Home) -> Result<Instance, Failure> {
    let mut tries = 10;
    loop {
        tries -= 1;
        match Instance::claim(home).map_err(|error| failed("cannot claim this home", error))? {
            Ok(instance) => return Ok(instance),
            Err(running) if tries == 0 => return Err(runs_already(running)),
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
        _ => failed(&format!("cannot listen on 127.0.0.1:{port}"), error),
    })
}

fn runs_already(running: Option<Running>) -> Failure {
    let what = match running {
        Some(Running { pid, port }) => format!("the proxy runs already: 127.0.0.1:{port}, process {pid}"),
        None => "another proxy is just starting".to_owned(),
    };
    Failure::new(Exit::Failure, what).hint("to end it, run: agentsecrets proxy stop")
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("{what}: {error}"))
}
