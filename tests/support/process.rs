//! Running programs from a test: their output whole, their end within a time limit; and waiting, within one too.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Its standard output, if it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Its standard output as JSON, if it succeeded.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}

/// A program without our environment but `PATH`, and without input.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs a program to its end; one that takes more than a minute is killed, and fails the test.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Outcome {
    finish_child(start(command), format!("{command:?}"))
}

/// Runs a program to its end with `input` on its standard input.
#[track_caller]
pub(crate) fn finish_with(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = start(command.stdin(Stdio::piped()));
    // A program that refuses before it reads closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    finish_child(child, format!("{command:?}"))
}

/// Starts a program whose output a test will read.
#[track_caller]
pub(crate) fn start(command: &mut Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// Waits for a program that a test started; see `finish`.
#[track_caller]
pub(crate) fn finish_child(mut child: Child, shown: String) -> Outcome {
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

/// Waits until `holds` does, which must come to pass within a minute.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}: it never was so");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An address on loopback at which nobody listens, for a program that a test starts.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    told
}
