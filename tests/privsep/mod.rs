//! The daemon's admin socket on a strict machine: stored data belongs to the daemon's user, and a program of
//! the operator's user gets none of it by calling us.

mod agent_access;
mod bypass;
mod command_table;
mod confirmation;
mod daemon;
mod malformed_requests;
mod polkit;
mod run_and_env;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::home::AGENTSECRETS;
use crate::support::process::{Outcome, command, run, run_with_input};
use crate::support::terminal::Terminal;

/// The users of the machine.
const DAEMON_UID: u32 = 70_000;
const ALICE: u32 = 70_001;
const BOB: u32 = 70_002;

/// The program at a path where every user of the machine may execute it.
const PROGRAM: &str = "/opt/agentsecrets";
const PASSPHRASE: &str = "correct horse battery";
const SECRET: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";

/// Its file systems are private, so that the host's accounts and files are not touched.
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

/// A machine with a daemon, in its own mount namespace. Dropping it ends the daemon.
struct Machine {
    daemon: Child,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// With the daemon as one process group.
    fn new() -> Self {
        Self::start_with(&[PROGRAM, "daemon"], &[])
    }

    /// With another daemon command, and variables for it.
    fn start_with(daemon: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("agentsecrets-door-").tempdir().unwrap();
        let mut started = command("unshare");
        started.args(["--mount", "--propagation", "private", "sh", "-c", SETUP, "sh"]);
        started.arg(folder.path()).arg(AGENTSECRETS).args(daemon).envs(variables.iter().copied());
        started.current_dir("/").stdout(Stdio::null());
        let machine = Self { daemon: started.spawn().unwrap(), _folder: folder };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        // The socket exists only inside the namespace: it is ready when a client gets through.
        while std::os::unix::net::UnixStream::connect(machine.host_path("run/agentsecrets/frontend.sock"))
            .is_err()
        {
            assert!(std::time::Instant::now() < deadline, "the daemon does not listen");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        machine
    }

    /// A file of the machine, as the host sees it.
    fn host_path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.daemon.id())).join(path)
    }

    /// A command of the machine's root.
    fn root_command(&self, words: &[&str]) -> Command {
        self.spawn_script("exec \"$@\"", words)
    }

    /// A command of the user `uid`.
    fn user_command(&self, uid: u32, words: &[&str]) -> Command {
        let id = uid.to_string();
        let become_user =
            format!("exec setpriv --reuid {id} --regid {id} --clear-groups --inh-caps=-all \"$@\"");
        let mut started = self.spawn_script(&become_user, words);
        started.env("HOME", if uid == ALICE { "/home/alice" } else { "/home/bob" });
        started
    }

    fn spawn_script(&self, script: &str, words: &[&str]) -> Command {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.daemon.id());
        let mut started = command("nsenter");
        started.args([&namespace, "sh", "-c", &format!("cd /tmp && {script}"), "sh"]).args(words);
        started.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        started
    }

    /// Our program with `words`, run by alice.
    fn alice_command(&self, words: &[&str]) -> Command {
        self.user_command(ALICE, &[&[PROGRAM], words].concat())
    }

    /// Our program with `words`, run by root for the user `uid`.
    fn root_command_for(&self, uid: u32, words: &[&str]) -> Command {
        let mut started = self.root_command(&[&[PROGRAM], words].concat());
        started.env("SUDO_UID", uid.to_string());
        started
    }

    /// Stores a secret as root for the user `uid`.
    fn store_secret(&self, uid: u32, name: &str, value: &str) {
        run_with_input(&mut self.root_command_for(uid, &["secrets", "set", name]), value.as_bytes()).ok();
    }

    /// Writes the policy of the user `uid`.
    fn write_policy(&self, uid: u32, policy: &str) {
        let path = self.host_path("etc/agentsecrets/new-policy.yaml");
        std::fs::write(path, policy).unwrap();
        run(&mut self.root_command_for(uid, &["policy", "set", "/etc/agentsecrets/new-policy.yaml"])).ok();
    }

    /// Sets the passphrase of the user `uid`.
    fn set_passphrase(&self, uid: u32) {
        let mut set = Terminal::start(&self.root_command_for(uid, &["presence", "set"]));
        for prompt in ["New passphrase", "again: "] {
            set.read_until(prompt);
            set.type_line(PASSPHRASE);
        }
        assert_eq!(set.code(), Some(0));
    }

    /// The output of `command` after the right passphrase was typed.
    #[track_caller]
    fn run_with_passphrase(&self, command: &Command) -> (Option<i32>, String) {
        let mut terminal = Terminal::start(command);
        terminal.read_until("Your passphrase");
        terminal.read_until(": ");
        terminal.type_line(PASSPHRASE);
        terminal.wait()
    }

    /// The administrative records of the user `uid`.
    fn admin_records(&self, uid: u32) -> Vec<serde_json::Value> {
        run(&mut self.root_command_for(uid, &["audit", "list", "--admin", "--json"])).json_lines()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let daemon = nix::unistd::Pid::from_raw(self.daemon.id() as i32);
        let _ = nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

/// Asserts exit code 4 and an output without the secret.
#[track_caller]
fn assert_refused(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(!format!("{outcome:?}").contains(SECRET), "{outcome:?}");
}
