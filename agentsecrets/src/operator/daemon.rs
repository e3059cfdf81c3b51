//! The daemon. Root binds the sockets, or takes those of systemd, and forks at once into frontend and
//! monitor. systemd may run the two as separate units.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::unistd::Pid;

use crate::identity::executable::cache_own_hash;
use crate::operator::authorizer::CommandPolicy;
use crate::operator::session_worker;
use crate::operator::system_config::{SYSTEM_CONFIG, SystemConfig};
use crate::privsep::frontend::{self, Confinement};
use crate::privsep::monitor;
use crate::server::sandbox::{landlock, privileges, seccomp};
use crate::sys::{self, process};
use crate::types::failure::{Exit, Failure};

/// The socket of the frontend.
pub(super) const FRONTEND_SOCKET: &str = "/run/agentsecrets/frontend.sock";
/// The socket of the monitor, for the frontend alone.
const MONITOR_SOCKET: &str = "/run/agentsecrets/monitor.sock";

/// Names of the sockets in systemd's units.
const FRONTEND: &str = "frontend";
const MONITOR: &str = "monitor";

/// One process of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DaemonProcess {
    /// Reads clients' requests.
    Frontend,
    /// Forks a session worker for each request.
    Monitor,
}

/// Serves until a signal ends it. Call it with a single thread.
pub(crate) fn serve(part: Option<DaemonProcess>, policy: &CommandPolicy) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failure, format!("the daemon: {error}"));
    let system = SystemConfig::load()?.ok_or_else(|| {
        Failure::new(Exit::Failure, format!("{SYSTEM_CONFIG} does not say that this machine is strict"))
            .hint("sudo agentsecrets daemon install")
    })?;
    if part != Some(DaemonProcess::Frontend) && !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Exit::Failure, "the daemon starts as root: it starts commands as others")
            .hint("sudo systemctl start agentsecrets.socket"));
    }
    let mut passed = inherited_listeners().map_err(failed)?;
    let mut listener = |name: &str, path: &str, mode: u32| -> io::Result<UnixListener> {
        match passed.iter().position(|(passed, _)| passed == name) {
            Some(at) => Ok(passed.swap_remove(at).1),
            None => bind(Path::new(path), mode, &system),
        }
    };
    match part {
        Some(DaemonProcess::Frontend) => {
            serve_frontend(listener(FRONTEND, FRONTEND_SOCKET, 0o666).map_err(failed)?, None, &system)
        }
        Some(DaemonProcess::Monitor) => {
            let listener = listener(MONITOR, MONITOR_SOCKET, 0o600).map_err(failed)?;
            serve_monitor(&listener, None, &system, policy)
        }
        None => {
            let monitor = listener(MONITOR, MONITOR_SOCKET, 0o600).map_err(failed)?;
            let frontend = listener(FRONTEND, FRONTEND_SOCKET, 0o666).map_err(failed)?;
            let parent = nix::unistd::getpid();
            let child = process::fork(|| {
                use std::os::fd::AsFd;
                let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
                let keep = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), frontend.as_fd()];
                if process::close_all_but(&keep).is_err() {
                    return 1;
                }
                u8::from(serve_frontend(frontend, Some(parent), &system).is_err())
            });
            let child = child.map_err(failed)?;
            serve_monitor(&monitor, Some(child), &system, policy)
        }
    }
    .map_err(failed)
}

fn serve_frontend(listener: UnixListener, parent: Option<Pid>, system: &SystemConfig) -> io::Result<()> {
    let confinement = Confinement {
        drop_privileges: || match nix::unistd::geteuid().is_root() {
            true => privileges::drop_privileges(system.uid.as_raw(), system.gid.as_raw()),
            false => Ok(()),
        },
        restrict_files: landlock::deny_all,
        restrict_system_calls: || seccomp::allow_serving(false),
    };
    frontend::serve(listener, Path::new(MONITOR_SOCKET), parent, confinement)
}

fn serve_monitor(
    listener: &UnixListener,
    frontend: Option<Pid>,
    system: &SystemConfig,
    policy: &CommandPolicy,
) -> io::Result<()> {
    // Nearly every client is this program.
    let _ = cache_own_hash();
    monitor::serve(listener, frontend, system.uid, |connection| {
        session_worker::run(connection, system, policy)
    })
}

/// Binds a socket at `path`. The monitor's socket belongs to the daemon's user alone.
fn bind(path: &Path, mode: u32, system: &SystemConfig) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    if mode == 0o600 {
        chown(path, Some(system.uid.as_raw()), Some(system.gid.as_raw()))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(listener)
}

/// The sockets that systemd passed, by name; one without a name is the frontend's.
fn inherited_listeners() -> io::Result<Vec<(String, UnixListener)>> {
    let passed = sd_notify::listen_fds_with_names()?.map(|(descriptor, name)| {
        let descriptor = sys::inherited(descriptor)?;
        let socket = socket2::SockRef::from(&descriptor);
        if !socket.is_listener()? || socket.domain()? != socket2::Domain::UNIX {
            return Err(io::Error::other(format!(
                "the passed socket '{name}' is not a listening Unix socket"
            )));
        }
        nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        let name = if name == MONITOR { name } else { FRONTEND.to_owned() };
        Ok((name, UnixListener::from(descriptor)))
    });
    passed.collect()
}
