//! A real keychain for one test: gnome-keyring on a private session bus without a password dialog.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::process::{command, run};

/// The bus and, once started, its Secret Service; dropping it ends both.
pub(crate) struct Keychain {
    folder: tempfile::TempDir,
    bus: Child,
    daemon: Option<Child>,
    uid: u32,
}

impl Keychain {
    /// A bus without a keychain.
    pub(crate) fn absent() -> Self {
        Self::absent_for(0)
    }

    /// A bus of the user `uid` without a keychain.
    fn absent_for(uid: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("keychain-").tempdir().unwrap();
        // The system's session configuration without service activation.
        let configuration = format!(
            "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN' \
             'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'>\n<busconfig><type>session</type>\
             <listen>unix:path={}/bus</listen><auth>EXTERNAL</auth><policy context='default'>\
             <allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/></policy>\
             </busconfig>",
            folder.path().display()
        );
        std::fs::write(folder.path().join("bus.conf"), configuration).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).unwrap();
        let mut bus = as_user(uid, "dbus-daemon");
        bus.args(["--nofork", "--print-address"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let file = format!("--config-file={}", folder.path().join("bus.conf").display());
        let mut bus = bus.arg(file).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(bus.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:path="), "dbus-daemon did not start");
        Self { folder, bus, daemon: None, uid }
    }

    /// An unlocked keychain.
    pub(crate) fn unlocked() -> Self {
        Self::unlocked_for(0)
    }

    /// An unlocked keychain of the user `uid`.
    pub(crate) fn unlocked_for(uid: u32) -> Self {
        let mut keychain = Self::absent_for(uid);
        keychain.unlock();
        keychain
    }

    /// Starts the daemon, replacing a running one, and unlocks the keychain.
    pub(crate) fn unlock(&mut self) {
        self.stop();
        let mut daemon = self.with_session(as_user(self.uid, "gnome-keyring-daemon"));
        daemon.args(["--foreground", "--unlock", "--components=secrets"]);
        daemon.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = daemon.spawn().unwrap();
        daemon.stdin.take().unwrap().write_all(b"the login password").unwrap();
        self.daemon = Some(daemon);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !self
            .dbus_send(
                "org.freedesktop.DBus",
                "/",
                "org.freedesktop.DBus.NameHasOwner",
                "string:org.freedesktop.secrets",
            )
            .contains("true")
        {
            assert!(std::time::Instant::now() < end, "gnome-keyring did not start");
        }
    }

    /// Locks it, as a desktop does when its user leaves.
    pub(crate) fn lock(&self) {
        let service = "/org/freedesktop/secrets";
        let login = format!("array:objpath:{service}/collection/login");
        self.dbus_send("org.freedesktop.secrets", service, "org.freedesktop.Secret.Service.Lock", &login);
    }

    /// Stops the daemon with SIGSTOP; the bus queues requests.
    pub(crate) fn hang(&self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon.as_ref().unwrap().id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// `command` with this session's variables.
    pub(crate) fn with_session(&self, mut command: Command) -> Command {
        let path = |name: &str| self.folder.path().join(name);
        command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", path("bus").display()));
        command.env("HOME", path("home")).env("XDG_DATA_HOME", path("data"));
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        command
    }

    /// The folder of its socket and files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The keyring file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("data/keyrings/login.keyring")
    }

    fn dbus_send(&self, service: &str, object: &str, method: &str, argument: &str) -> String {
        let mut send = self.with_session(as_user(self.uid, "dbus-send"));
        send.args(["--session", "--print-reply", &format!("--dest={service}"), object, method, argument]);
        run(&mut send).ok()
    }
}

/// A program as the user `uid`.
pub(crate) fn as_user(uid: u32, program: &str) -> Command {
    let mut setpriv = command("setpriv");
    let id = uid.to_string();
    setpriv.args(["--reuid", &id, "--regid", &id, "--clear-groups", program]);
    setpriv
}

impl Drop for Keychain {
    fn drop(&mut self) {
        self.stop();
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}
