//! The person's door on a strict machine: what is stored belongs to the daemon's own user, and a program of
//! the person's user gets at none of it by calling us, whatever it tries.

mod agents;
mod hostile;
mod life;
mod people;
mod polkit;
mod ran;
mod tricks;
mod verbs;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::home::AGENTSECRETS;
use crate::support::process::{Outcome, command, finish, finish_with};
use crate::support::terminal::Terminal;

/// The users of the machine.
const KEEPER: u32 = 70_000;
const ALICE: u32 = 70_001;
const BOB: u32 = 70_002;

/// The program, where everybody of the machine may execute it.
const PROGRAM: &str = "/opt/agentsecrets";
const PASSPHRASE: &str = "correct horse battery";
const SECRET: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";

/// Its file systems are its own, so that neither accounts nor files of the host are touched.
const SETUP: &str = r#"
set -e
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir "$1/up" "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/up,workdir=$1/work" /etc
printf 'keeper:x:70000:70000::/:/bin/false\nalice:x:70001:70001::/home/alice:/bin/sh\nbob:x:70002:70002::/home/bob:/bin/sh\n' >> /etc/passwd
mkdir /etc/agentsecrets
printf 'strict: true\nuser: keeper\n' > /etc/agentsecrets/config.yaml
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mkdir -p /run/agentsecrets
mount -t tmpfs -o mode=0755 tmpfs /run/agentsecrets
mount -t tmpfs -o mode=0755 tmpfs /opt
touch /opt/agentsecrets
mount --bind "$2" /opt/agentsecrets
mount -t tmpfs -o mode=0755 tmpfs /home
for user in alice:70001 bob:70002; do
  mkdir -m 700 "/home/${user%:*}"
  chown "${user#*:}:${user#*:}" "/home/${user%:*}"
done
# Last, for the paths that were given lie below it: nothing is written to the host's.
mount -t tmpfs -o mode=1777 tmpfs /tmp
shift 2
exec "$@"
"#;

/// A machine with a daemon: a mount namespace of its own. Dropping it ends the daemon.
struct Machine {
    daemon: Child,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// With the daemon as one process group of its own.
    fn new() -> Self {
        Self::with(&[PROGRAM, "daemon"], &[])
    }

    /// With another way to start the daemon, and variables for it.
    fn with(daemon: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("agentsecrets-door-").tempdir().unwrap();
        let mut started = command("unshare");
        started.args(["--mount", "--propagation", "private", "sh", "-c", SETUP, "sh"]);
        started.arg(folder.path()).arg(AGENTSECRETS).args(daemon).envs(variables.iter().copied());
        started.current_dir("/").stdout(Stdio::null());
        let machine = Self { daemon: started.spawn().unwrap(), _folder: folder };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        // What it listens on exists only within it: it is there when somebody gets through.
        while std::os::unix::net::UnixStream::connect(machine.inside("run/agentsecrets/door.sock")).is_err() {
            assert!(std::time::Instant::now() < deadline, "the daemon does not listen");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        machine
    }

    /// A file of the machine, as the host sees it.
    fn inside(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.daemon.id())).join(path)
    }

    /// A program of the machine's root.
    fn root(&self, words: &[&str]) -> Command {
        self.start("exec \"$@\"", words)
    }

    /// A program of the user `uid`.
    fn user(&self, uid: u32, words: &[&str]) -> Command {
        let id = uid.to_string();
        let become_user =
            format!("exec setpriv --reuid {id} --regid {id} --clear-groups --inh-caps=-all \"$@\"");
        let mut started = self.start(&become_user, words);
        started.env("HOME", if uid == ALICE { "/home/alice" } else { "/home/bob" });
        started
    }

    fn start(&self, script: &str, words: &[&str]) -> Command {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.daemon.id());
        let mut started = command("nsenter");
        started.args([&namespace, "sh", "-c", &format!("cd /tmp && {script}"), "sh"]).args(words);
        started.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        started
    }

    /// Our program with `words`, by alice.
    fn alice(&self, words: &[&str]) -> Command {
        self.user(ALICE, &[&[PROGRAM], words].concat())
    }

    /// Our program with `words`, by root for the user `uid`.
    fn for_user(&self, uid: u32, words: &[&str]) -> Command {
        let mut started = self.root(&[&[PROGRAM], words].concat());
        started.env("SUDO_UID", uid.to_string());
        started
    }

    /// Stores a secret as root does for the user `uid`.
    fn store(&self, uid: u32, name: &str, value: &str) {
        finish_with(&mut self.for_user(uid, &["secrets", "set", name]), value.as_bytes()).ok();
    }

    /// Puts `policy` in force for the user `uid`.
    fn policy(&self, uid: u32, policy: &str) {
        let path = self.inside("etc/agentsecrets/new-policy.yaml");
        std::fs::write(path, policy).unwrap();
        finish(&mut self.for_user(uid, &["policy", "set", "/etc/agentsecrets/new-policy.yaml"])).ok();
    }

    /// Sets the passphrase of the user `uid`.
    fn presence(&self, uid: u32) {
        let mut set = Terminal::start(&self.for_user(uid, &["presence", "set"]));
        for prompt in ["New passphrase", "again: "] {
            set.until(prompt);
            set.enter(PASSPHRASE);
        }
        assert_eq!(set.code(), Some(0));
    }

    /// What `wanted` shows after the right passphrase was typed.
    #[track_caller]
    fn present(&self, wanted: &Command) -> (Option<i32>, String) {
        let mut terminal = Terminal::start(wanted);
        terminal.until("Your passphrase");
        terminal.until(": ");
        terminal.enter(PASSPHRASE);
        terminal.end()
    }

    /// The administrative records of the user `uid`.
    fn acts(&self, uid: u32) -> Vec<serde_json::Value> {
        let lines = finish(&mut self.for_user(uid, &["audit", "list", "--admin", "--json"])).ok();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let daemon = nix::unistd::Pid::from_raw(self.daemon.id() as i32);
        let _ = nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

/// That an attempt was refused, by exit code 4 and without the secret.
#[track_caller]
fn assert_refused(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(!format!("{outcome:?}").contains(SECRET), "{outcome:?}");
}
