//! The daemon: root opens the sockets, or takes those that systemd opened, and splits at once into porter and
//! starter. systemd may run the two as units of their own.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::privsep::SOCKET;
use crate::privsep::STARTER;
use crate::privsep::authorizer::Verbs;
use crate::privsep::frontend;
use crate::privsep::monitor;
use crate::privsep::system_config::{FILE, System};
use crate::sys::{self, process};
use crate::types::failure::{Exit, Failure};

/// One half of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The one that reads what clients send.
    Porter,
    /// The one that starts verbs.
    Starter,
}

/// Serves until the system asks to end. Call it with a single thread.
pub fn serve(part: Option<Part>, verbs: &Verbs) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failure, format!("the daemon: {error}"));
    let system = System::find()?.ok_or_else(|| {
        Failure::new(Exit::Failure, format!("{FILE} does not say that this machine is strict"))
            .hint("sudo agentsecrets daemon install")
    })?;
    if part != Some(Part::Porter) && !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Exit::Failure, "the daemon starts as root: it starts commands as others")
            .hint("sudo systemctl start agentsecrets.socket"));
    }
    let mut given = inherited().map_err(failed)?;
    let mut listener = |name: &str, path: &str, mode: u32| -> io::Result<UnixListener> {
        match given.iter().position(|(given, _)| given == name) {
            Some(at) => Ok(given.swap_remove(at).1),
            None => bind(Path::new(path), mode, &system),
        }
    };
    match part {
        Some(Part::Porter) => {
            frontend::serve(listener("door", SOCKET, 0o666).map_err(failed)?, None, &system)
        }
        Some(Part::Starter) => {
            let listener = listener("starter", STARTER, 0o600).map_err(failed)?;
            monitor::start(&listener, None, &system, verbs)
        }
        None => {
            let starters = listener("starter", STARTER, 0o600).map_err(failed)?;
            let doors = listener("door", SOCKET, 0o666).map_err(failed)?;
            let starter = nix::unistd::getpid();
            let porter = process::fork(|| {
                use std::os::fd::AsFd;
                let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
                let kept = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), doors.as_fd()];
                if process::close_all_but(&kept).is_err() {
                    return 1;
                }
                u8::from(frontend::serve(doors, Some(starter), &system).is_err())
            });
            let porter = porter.map_err(failed)?;
            monitor::start(&starters, Some(porter), &system, verbs)
        }
    }
    .map_err(failed)
}

/// A socket of our own at `path`. The starter's file belongs to the daemon's user alone.
fn bind(path: &Path, mode: u32, system: &System) -> io::Result<UnixListener> {
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

/// The sockets that systemd opened for us, by name; one without a name is the door.
fn inherited() -> io::Result<Vec<(String, UnixListener)>> {
    let given = sd_notify::listen_fds_with_names()?.map(|(descriptor, name)| {
        let descriptor = sys::inherited(descriptor)?;
        let socket = socket2::SockRef::from(&descriptor);
        if !socket.is_listener()? || socket.domain()? != socket2::Domain::UNIX {
            return Err(io::Error::other(format!("the socket '{name}' that was given is none of ours")));
        }
        nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        let name = if name == "starter" { name } else { "door".to_owned() };
        Ok((name, UnixListener::from(descriptor)))
    });
    given.collect()
}
