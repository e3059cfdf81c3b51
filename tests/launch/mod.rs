//! `run` with a stand-in for the interceptor: start, sandbox, and cleanup whichever process is killed. These
//! tests need root.

mod confinement;
mod lifetime;
mod startup;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Output, Stdio};

/// The launcher with the stand-in, an example that cargo builds with the tests.
fn launcher() -> PathBuf {
    assert!(nix::unistd::geteuid().is_root(), "run these tests as root: sudo -E cargo test");
    let built = Path::new(env!("CARGO_BIN_EXE_agentsecrets")).with_file_name("examples").join("launch_with");
    assert!(built.exists(), "not built: cargo build -p agentsecrets --example launch_with");
    built
}

/// A launcher command with its own home.
pub(crate) fn launch(options: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new(launcher());
    command.args(options).arg("--").args(words).stdin(Stdio::null()).current_dir("/tmp");
    command.env("AGENTSECRETS_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"));
    command
}

/// Runs a shell script as an agent.
fn run_script(text: &str) -> Output {
    launch(&[], &["sh", "-c", text]).output().unwrap()
}

fn script_output(text: &str) -> String {
    let output = run_script(text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A running agent, and the data that its interceptor got.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    interceptor: i32,
    order: serde_json::Value,
}

impl Running {
    /// Starts a script and returns when it has printed `ready`.
    pub(crate) fn start(options: &[&str], text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let order = folder.path().join("order");
        let mut command = launch(options, &["sh", "-c", text]);
        command.env("STAND_IN_ORDER", &order);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let order = std::fs::read_to_string(order).unwrap();
        let (interceptor, order) = order.split_once('\n').unwrap();
        Self {
            input: child.stdin.take(),
            errors: BufReader::new(child.stderr.take().unwrap()),
            child,
            output,
            interceptor: interceptor.parse().unwrap(),
            order: serde_json::from_str(order).unwrap(),
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// The run's folder; the cleanup process holds its lock.
    fn folder(&self) -> PathBuf {
        Path::new("/run/agentsecrets").join(self.order["session"].as_str().unwrap())
    }

    /// The open lock, to wait for the end of its holder.
    fn lock(&self) -> std::fs::File {
        std::fs::File::open(self.folder().join("lock")).unwrap()
    }

    /// Everything on the host that must be gone after the run.
    pub(crate) fn traces(&self) -> Vec<PathBuf> {
        let root = Path::new(self.order["cgroup_root"].as_str().unwrap());
        let cgroup = root.join(self.order["cgroup"].as_str().unwrap().trim_start_matches('/'));
        let session = self.order["session"].as_str().unwrap();
        vec![
            cgroup,
            self.order["pins"].as_str().unwrap().into(),
            format!("/tmp/agentsecrets-{session}").into(),
            self.folder(),
        ]
    }
}
