//! Signals, terminals and ends: nothing is left, whichever process dies.

use std::io::{BufRead, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Running, launcher, run_script};

#[test]
fn normal_exit_cleans_up() {
    let mut run = Running::start(&[], "echo ready; sleep 1000 & read line; exit 4");
    let traces = run.traces();
    assert!(traces.iter().all(|trace| trace.exists()), "{traces:?}");
    drop(run.input.take());
    assert_eq!(run.child.wait().unwrap().code(), Some(4));
    assert!(traces.iter().all(|trace| !trace.exists()), "{traces:?}");
}

#[test]
fn killed_launcher_cleans_up() {
    let mut run = Running::start(&[], "echo ready; setsid sleep 1000 & sleep 1000");
    let (traces, lock) = (run.traces(), run.lock());
    run.signal(Signal::SIGKILL);
    run.child.wait().unwrap();
    // When the cleanup process ends, everything else has ended.
    lock.lock().unwrap();
    assert!(traces.iter().all(|trace| !trace.exists()), "{traces:?}");
}

#[test]
fn next_run_cleans_up_after_killed_cleanup_process() {
    let mut run = Running::start(&[], "echo ready; sleep 1000");
    let (traces, lock) = (run.traces(), run.lock());
    let name = run.folder().join("lock");
    let cleanup = process_holding(&name);
    kill(cleanup, Signal::SIGKILL).unwrap();
    run.signal(Signal::SIGKILL);
    run.child.wait().unwrap();
    lock.lock().unwrap();
    // While the lock is held, no run of another test treats this one as dead.
    assert!(traces.iter().any(|trace| trace.exists()));
    drop(lock);
    assert!(run_script("true").status.success());
    assert!(traces.iter().all(|trace| !trace.exists()), "{traces:?}");
}

/// The process that has `file` open.
fn process_holding(file: &std::path::Path) -> Pid {
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
fn sigterm_reaches_command() {
    let mut run =
        Running::start(&[], "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.01; done");
    run.signal(Signal::SIGTERM);
    let mut stdout = String::new();
    run.output.read_to_string(&mut stdout).unwrap();
    assert_eq!(stdout, "asked\n");
    assert_eq!(run.child.wait().unwrap().code(), Some(9));
}

#[test]
fn second_sigterm_kills() {
    let mut run = Running::start(&[], "trap 'echo asked' INT; echo ready; while :; do sleep 0.01; done");
    run.signal(Signal::SIGINT);
    let mut stdout = String::new();
    run.output.read_line(&mut stdout).unwrap();
    assert_eq!(stdout, "asked\n");
    run.signal(Signal::SIGINT);
    assert_eq!(run.child.wait().unwrap().code(), Some(128 + 9));
}

#[test]
fn ttl_ends_command() {
    let started = Instant::now();
    let mut run = Running::start(&["--ttl", "1"], "echo ready; exec sleep 1000");
    assert_eq!(run.child.wait().unwrap().code(), Some(128 + 15));
    let mut deaf = Running::start(&["--ttl", "1"], "trap '' TERM; echo ready; while :; do sleep 0.1; done");
    assert_eq!(deaf.child.wait().unwrap().code(), Some(128 + 9));
    assert!(started.elapsed() > Duration::from_secs(2 + 5));
}

#[test]
fn dead_interceptor_is_reported_and_agent_continues() {
    let mut run = Running::start(&[], "echo ready; read line; exit 6");
    kill(Pid::from_raw(run.interceptor), Signal::SIGKILL).unwrap();
    let mut output = String::new();
    run.errors.read_line(&mut output).unwrap();
    assert!(output.contains("the interceptor ended; the agent is offline"), "{output}");
    assert_eq!(
        run.order["listeners"].as_array().unwrap().len(),
        run.order["dns_udp"].as_array().unwrap().len()
    );
    drop(run.input.take());
    assert_eq!(run.child.wait().unwrap().code(), Some(6));
}

/// Starts the launcher on a terminal; returns the caller's side and the previous settings. `setsid` becomes
/// the launcher.
fn start_on_terminal(text: &str) -> (std::process::Child, std::fs::File, nix::sys::termios::Termios) {
    let pair = nix::pty::openpty(None, None).unwrap();
    // Otherwise the launcher would hold the caller's side too, and its terminal would never hang up.
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

/// The terminal's output up to and with `end`.
fn read_until(screen: &mut std::fs::File, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let length = screen.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

#[test]
fn agent_has_own_terminal_and_callers_is_restored() {
    let (mut child, mut screen, before) = start_on_terminal(
        "tty; ls -1 /dev/pts; trap 'echo interrupted; exit 8' INT; echo ready; while :; do sleep 0.01; done",
    );
    let shown = read_until(&mut screen, "ready");
    assert!(shown.contains("/dev/pts/0\r\n0\r\nptmx\r\n"), "it sees its own alone: {shown}");
    assert_ne!(settings(&screen), before, "keys go to the agent as they are");
    screen.write_all(b"\x03").unwrap();
    read_until(&mut screen, "interrupted");
    assert_eq!(child.wait().unwrap().code(), Some(8));
    assert_eq!(settings(&screen), before);
}

fn settings(screen: &std::fs::File) -> nix::sys::termios::Termios {
    nix::sys::termios::tcgetattr(screen).unwrap()
}

#[test]
fn stalled_terminal_does_not_block_exit() {
    let (mut child, mut screen, before) = start_on_terminal("trap 'exit 5' TERM; echo ready; yes & wait");
    read_until(&mut screen, "ready");
    // From here on nothing reads the screen, and the input exceeds the agent's terminal buffer.
    let typed = vec![b'x'; 3000];
    screen.write_all(&typed).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(settings(&screen), before);
}

#[test]
fn closed_terminal_ends_command() {
    let (mut child, mut screen, _) = start_on_terminal("echo ready; exec sleep 1000");
    read_until(&mut screen, "ready");
    drop(screen);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 1));
}

#[test]
fn terminal_size_is_forwarded() {
    let (mut child, mut screen, _) = start_on_terminal("trap 'stty size; exit' WINCH; echo ready; read line");
    read_until(&mut screen, "ready");
    let of_screen = Stdio::from(screen.try_clone().unwrap());
    let resized = Command::new("stty").args(["rows", "33", "cols", "101"]).stdin(of_screen).status();
    assert!(resized.unwrap().success());
    read_until(&mut screen, "33 101");
    child.wait().unwrap();
}

#[test]
fn pipes_stay_pipes() {
    let output = run_script(
        "[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none; (: </dev/tty) 2>/dev/null || echo no terminal at all",
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "none\nno terminal at all\n");
}
