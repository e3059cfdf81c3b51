//! Runs the launcher with another interceptor, to test it alone: `launch_with [--user U] [--ttl SECONDS]
//! [--interceptor PROGRAM] -- CMD…`. Without `--interceptor` this program is also a stub of the interceptor:
//! it reads the launch configuration, answers, and exits with the launcher.
#![allow(clippy::expect_used, clippy::panic, reason = "a part of the tests, which fails loudly")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use agentsecrets::launch::{RunConfig, RunError, run};
use agentsecrets::sys::home::Home;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "stand-in") {
        run_stub();
        return ExitCode::SUCCESS;
    }
    let mut config = RunConfig {
        home: Home::find(None).expect("a home"),
        project: Default::default(),
        environment: Default::default(),
        restriction: Default::default(),
        agent: Some("tested".parse().expect("a name")),
        user: None,
        caller: None,
        requested_by: None,
        caller_environment: std::env::vars_os().collect(),
        ttl: None,
        command: Vec::new(),
    };
    let mut interceptor: Vec<OsString> = vec!["/proc/self/exe".into(), "stand-in".into()];
    while let Some(option) = words.next() {
        let mut value = || words.next().and_then(|word| word.into_string().ok()).expect("a value");
        match option.to_str() {
            Some("--user") => config.user = Some(value()),
            Some("--ttl") => config.ttl = Some(Duration::from_secs(value().parse().expect("seconds"))),
            Some("--interceptor") => interceptor = vec![value().into()],
            Some("--") => break,
            _ => panic!("unknown option {option:?}"),
        }
    }
    config.command = words.collect();
    match run(&config, &interceptor) {
        Ok(exit) => ExitCode::from(exit),
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                RunError::CommandNotStarted { exit, .. } => ExitCode::from(exit),
                _ => ExitCode::from(125),
            }
        }
    }
}

/// Speaks the interceptor's protocol: a length of four bytes (big-endian), then JSON.
fn run_stub() {
    let control = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
    let mut control = UnixStream::from(control);
    let mut length = [0; 4];
    control.read_exact(&mut length).expect("a length");
    let mut launch_config = vec![0; u32::from_be_bytes(length) as usize];
    control.read_exact(&mut launch_config).expect("a launch configuration");
    if let Ok(path) = std::env::var("STAND_IN_ORDER") {
        let launch_config = String::from_utf8(launch_config).expect("text");
        std::fs::write(path, format!("{}\n{launch_config}", std::process::id())).expect("a file");
    }
    let certificate = "-----BEGIN CERTIFICATE-----\\nb3Vycw==\\n-----END CERTIFICATE-----\\n";
    let response = format!(
        r#"{{"ready":{{"authority":"{certificate}","placeholders":{{"STRIPE_KEY":"AS_SECRET_STRIPE_KEY"}},"inbound":[],"secret_folders":[]}}}}"#
    );
    let length = u32::try_from(response.len()).expect("a short response").to_be_bytes();
    control.write_all(&[&length[..], response.as_bytes()].concat()).expect("a response");
    // The end of the launcher closes the socket.
    let _ = control.read(&mut [0]);
}
