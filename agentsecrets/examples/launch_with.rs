//! `run` with an interceptor of the caller's choice, so that the launcher is tested by itself:
//! `launch_with [--user U] [--ttl SECONDS] [--interceptor PROGRAM] -- CMD…`. Without `--interceptor`, this
//! program stands in for it: it takes the order, answers, and ends when the launcher does.
#![allow(clippy::expect_used, clippy::panic, reason = "a part of the tests, which fails loudly")]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use agentsecrets::launch::{NotRun, Run, run};
use agentsecrets::sys::home::Home;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "stand-in") {
        stand_in();
        return ExitCode::SUCCESS;
    }
    let mut wanted = Run {
        home: Home::find(None).expect("a home"),
        project: Default::default(),
        environment: Default::default(),
        narrow: Default::default(),
        agent: Some("tested".parse().expect("a name")),
        user: None,
        person: None,
        asked_by: None,
        variables: std::env::vars_os().collect(),
        ttl: None,
        command: Vec::new(),
    };
    let mut interceptor: Vec<OsString> = vec!["/proc/self/exe".into(), "stand-in".into()];
    while let Some(option) = words.next() {
        let mut value = || words.next().and_then(|word| word.into_string().ok()).expect("a value");
        match option.to_str() {
            Some("--user") => wanted.user = Some(value()),
            Some("--ttl") => wanted.ttl = Some(Duration::from_secs(value().parse().expect("seconds"))),
            Some("--interceptor") => interceptor = vec![value().into()],
            Some("--") => break,
            _ => panic!("unknown option {option:?}"),
        }
    }
    wanted.command = words.collect();
    match run(&wanted, &interceptor) {
        Ok(exit) => ExitCode::from(exit),
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                NotRun::NotStarted { exit, .. } => ExitCode::from(exit),
                _ => ExitCode::from(125),
            }
        }
    }
}

fn stand_in() {
    let control = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
    let mut control = UnixStream::from(control);
    let mut order = String::new();
    BufReader::new(control.try_clone().expect("a descriptor")).read_line(&mut order).expect("an order");
    if let Ok(path) = std::env::var("STAND_IN_ORDER") {
        std::fs::write(path, format!("{}\n{order}", std::process::id())).expect("a file for the order");
    }
    let certificate = "-----BEGIN CERTIFICATE-----\\nb3Vycw==\\n-----END CERTIFICATE-----\\n";
    let answer = format!(
        r#"{{"ready":{{"authority":"{certificate}","placeholders":{{"STRIPE_KEY":"AS_SECRET_STRIPE_KEY"}},"inbound":[],"hidden":[]}}}}"#
    );
    writeln!(control, "{answer}").expect("an answer");
    // The end of the launcher closes the socket.
    let _ = control.read(&mut [0]);
}
