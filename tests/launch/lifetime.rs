//! Signals, terminals and ends: whoever dies, however, nothing is left.

use std::io::{BufRead, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Running, launcher, script};

#[test]
fn a_normal_end_leaves_nothing() {
    let mut run = Running::start(&[], "echo ready; sleep 1000 & read line; exit 4");
    let traces = run.traces();
    assert!(traces.iter().all(|trace| trace.exists()), "{traces:?}");
    drop(run.input.take());
    assert_eq!(run.child.wait().unwrap().code(), Some(4));
    assert!(traces.iter().all(|trace| !trace.exists()), "{traces:?}");
}

#[test]
fn a_killed_launcher_takes_everything_with_it() {
    let mut run = Running::start(&[], "echo ready; setsid sleep 1000 & sleep 1000");
    let (traces, lock) = (run.traces(), run.lock());
    run.signal(Signal::SIGKILL);
    run.child.wait().unwrap();
    // The janitor's end is the end of all else.
    lock.lock().unwrap();
    assert!(traces.iter().all(|trace| !trace.exists()), "{traces:?}");
}

#[test]
fn when_the_janitor_is_killed_as_well_the_next_run_cleans_up() {
    let mut run = Running::start(&[], "echo ready; sleep 1000");
    let (traces, lock) = (run.traces(), run.lock());
    let name = run.folder().join("lock");
    let janitor = holder(&name);
    kill(janitor, Signal::SIGKILL).unwrap();
    run.signal(Signal::SIGKILL);
    run.child.wait().unwrap();
    lock.lock().unwrap();
    // While the lock is held no run of another test takes this one for dead.
    assert!(traces.iter().any(|trace| trace.exists()));
    drop(lock);
    assert!(script("true").status.success());
    assert!(traces.iter().all(|trace| !trace.exists()), "{traces:?}");
}

/// The process that has `file` open.
fn holder(file: &std::path::Path) -> Pid {
    let holds = |pid: &i32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        *pid != std::process::id() as i32
            && descriptors.into_iter().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == file))
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pid = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(holds);
    Pid::from_raw(pid.expect("somebody holds it"))
}

#[test]
fn a_request_to_end_reaches_the_command() {
    let mut run =
        Running::start(&[], "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.01; done");
    run.signal(Signal::SIGTERM);
    let mut said = String::new();
    run.output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "asked\n");
    assert_eq!(run.child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_second_request_is_not_a_request() {
    let mut run = Running::start(&[], "trap 'echo asked' INT; echo ready; while :; do sleep 0.01; done");
    run.signal(Signal::SIGINT);
    let mut said = String::new();
    run.output.read_line(&mut said).unwrap();
    assert_eq!(said, "asked\n");
    run.signal(Signal::SIGINT);
    assert_eq!(run.child.wait().unwrap().code(), Some(128 + 9));
}

#[test]
fn time_runs_out_for_those_who_listen_and_those_who_do_not() {
    let started = Instant::now();
    let mut run = Running::start(&["--ttl", "1"], "echo ready; exec sleep 1000");
    assert_eq!(run.child.wait().unwrap().code(), Some(128 + 15));
    let mut deaf = Running::start(&["--ttl", "1"], "trap '' TERM; echo ready; while :; do sleep 0.1; done");
    assert_eq!(deaf.child.wait().unwrap().code(), Some(128 + 9));
    assert!(started.elapsed() > Duration::from_secs(2 + 5));
}

#[test]
fn without_an_interceptor_the_agent_goes_on_and_the_person_hears_of_it() {
    let mut run = Running::start(&[], "echo ready; read line; exit 6");
    kill(Pid::from_raw(run.interceptor), Signal::SIGKILL).unwrap();
    let mut said = String::new();
    run.errors.read_line(&mut said).unwrap();
    assert!(said.contains("the interceptor ended; the agent is offline"), "{said}");
    assert_eq!(
        run.order["listeners"].as_array().unwrap().len(),
        run.order["dns_udp"].as_array().unwrap().len()
    );
    drop(run.input.take());
    assert_eq!(run.child.wait().unwrap().code(), Some(6));
}

/// Starts the launcher on a terminal, as a person would, and returns the person's side and the settings
/// before. `setsid` becomes the launcher.
fn on_terminal(text: &str) -> (std::process::Child, std::fs::File, nix::sys::termios::Termios) {
    let pair = nix::pty::openpty(None, None).unwrap();
    // Else the launcher would hold the person's side too, and its terminal never hang up.
    for side in [&pair.master, &pair.slave] {
        fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    let before = nix::sys::termios::tcgetattr(&pair.slave).unwrap();
    let stdio = || Stdio::from(pair.slave.try_clone().unwrap());
    let child = Command::new("setsid")
        .args(["--ctty", "--wait"])
        .arg(launcher())
        .args(["--", "sh", "-c", text])
        .current_dir("/tmp")
        .env("AGENTSECRETS_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"))
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .unwrap();
    (child, pair.master.into(), before)
}

/// What appears on the terminal up to and with `end`.
fn until(screen: &mut std::fs::File, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let length = screen.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

#[test]
fn at_a_terminal_the_agent_has_one_of_its_own_and_the_persons_is_restored() {
    let (mut child, mut screen, before) = on_terminal(
        "tty; ls -1 /dev/pts; trap 'echo interrupted; exit 8' INT; echo ready; while :; do sleep 0.01; done",
    );
    let shown = until(&mut screen, "ready");
    assert!(shown.contains("/dev/pts/0\r\n0\r\nptmx\r\n"), "it sees its own alone: {shown}");
    assert_ne!(settings(&screen), before, "keys go to the agent as they are");
    screen.write_all(b"\x03").unwrap();
    until(&mut screen, "interrupted");
    assert_eq!(child.wait().unwrap().code(), Some(8));
    assert_eq!(settings(&screen), before);
}

fn settings(screen: &std::fs::File) -> nix::sys::termios::Termios {
    nix::sys::termios::tcgetattr(screen).unwrap()
}

#[test]
fn a_terminal_on_which_nothing_moves_does_not_hold_up_the_end() {
    let (mut child, mut screen, before) = on_terminal("trap 'exit 5' TERM; echo ready; yes & wait");
    until(&mut screen, "ready");
    // Nobody reads the screen from here on, and more is typed than the agent's terminal takes.
    let typed = vec![b'x'; 3000];
    screen.write_all(&typed).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(settings(&screen), before);
}

#[test]
fn a_person_who_closes_the_terminal_ends_the_command() {
    let (mut child, mut screen, _) = on_terminal("echo ready; exec sleep 1000");
    until(&mut screen, "ready");
    drop(screen);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 1));
}

#[test]
fn the_size_of_the_terminal_is_the_persons() {
    let (mut child, mut screen, _) = on_terminal("trap 'stty size; exit' WINCH; echo ready; read line");
    until(&mut screen, "ready");
    let of_screen = Stdio::from(screen.try_clone().unwrap());
    let resized = Command::new("stty").args(["rows", "33", "cols", "101"]).stdin(of_screen).status();
    assert!(resized.unwrap().success());
    until(&mut screen, "33 101");
    child.wait().unwrap();
}

#[test]
fn what_is_piped_stays_a_pipe() {
    let output = script(
        "[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none; (: </dev/tty) 2>/dev/null || echo no terminal at all",
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "none\nno terminal at all\n");
}
