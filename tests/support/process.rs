//! Running programs from tests with a time limit, and waiting for conditions.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The result of a program.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Standard output; fails unless the program succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Standard output as JSON; fails unless the program succeeded.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The lines of standard output; fails unless the program succeeded.
    #[track_caller]
    pub(crate) fn lines(self) -> Vec<String> {
        self.ok().lines().map(str::to_owned).collect()
    }

    /// Standard output as one JSON value a line; fails unless the program succeeded.
    #[track_caller]
    pub(crate) fn json_lines<T: serde::de::DeserializeOwned>(self) -> Vec<T> {
        parse_json_lines(&self.ok())
    }
}

/// Parses one JSON value a line.
#[track_caller]
pub(crate) fn parse_json_lines<T: serde::de::DeserializeOwned>(text: &str) -> Vec<T> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    text.lines().map(parse).collect()
}

/// A command with an empty environment except `PATH`, and without input.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs a program; after a minute it is killed and the test fails.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Outcome {
    wait_with_output(start(command), format!("{command:?}"))
}

/// Runs a program with `input` on its standard input.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = start(command.stdin(Stdio::piped()));
    // A program that exits before it reads closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    wait_with_output(child, format!("{command:?}"))
}

/// Starts a program with piped output.
#[track_caller]
pub(crate) fn start(command: &mut Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// Waits for a started program; see `run`.
#[track_caller]
pub(crate) fn wait_with_output(mut child: Child, shown: String) -> Outcome {
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let limit = Duration::from_secs(60);
    let Ok(out) = stdout.recv_timeout(limit) else {
        let _ = child.kill();
        panic!(
            "{shown} did not end within a minute; stderr: {:?}",
            stderr.recv_timeout(Duration::from_secs(5))
        );
    };
    let err = stderr.recv_timeout(limit).unwrap_or_default();
    let status = child.wait().unwrap();
    Outcome { code: status.code(), stdout: out, stderr: err }
}

/// Waits until `holds` returns true; fails after a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}: it never was so");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A loopback address without a listener.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
