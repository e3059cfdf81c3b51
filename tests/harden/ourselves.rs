//! What each of our processes may still do while an agent runs, and what others may do to them.

use std::os::unix::fs::chown;
use std::path::Path;

use nix::sys::signal::Signal;

use super::*;
use crate::support::process::{command, finish};

pub(crate) const NONE: u64 = 0;
pub(crate) const SYS_PTRACE: u64 = 1 << 19;
const KILL: u64 = 1 << 5;
const DAC_OVERRIDE: u64 = 1 << 1;
const FOWNER: u64 = 1 << 3;

/// A user that no account is of.
pub(crate) const OWNER: u32 = 54_322;

/// Asserts that `pid` has `kept` and can never have more.
pub(crate) fn assert_confined(pid: u32, kept: u64) {
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(pid, set), format!("{kept:016x}"), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(pid, set), format!("{NONE:016x}"), "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
}

/// Makes everything in `folder`, and itself, that user's.
pub(crate) fn give(folder: &Path, owner: u32) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            give(&entry.path(), owner);
        }
        chown(entry.path(), Some(owner), Some(owner)).unwrap();
    }
    chown(folder, Some(owner), Some(owner)).unwrap();
}

#[test]
fn each_of_our_processes_keeps_what_it_still_needs() {
    let world = World::new();
    let agent = Agent::waiting(&world.home);
    let launcher = agent.child.id();
    assert_confined(launcher, KILL);

    let interceptor = agent.interceptor();
    assert_confined(interceptor, NONE);
    for thread in std::fs::read_dir(format!("/proc/{interceptor}/task")).unwrap().flatten() {
        let thread = thread.file_name().to_str().unwrap().parse().unwrap();
        assert_confined(thread, NONE);
        assert_eq!(status(thread, "Seccomp"), "2");
    }
    let [witness] = children(interceptor)[..] else { panic!("one witness") };
    assert_confined(witness, SYS_PTRACE);
    assert_eq!(status(witness, "Seccomp"), "2");
    let held = std::fs::read_dir(format!("/proc/{witness}/fd")).unwrap().count();
    assert_eq!(held, 1, "the witness holds its line and nothing else");

    let kept: Vec<String> = children(launcher).into_iter().map(|pid| status(pid, "CapEff")).collect();
    let janitor = format!("{:016x}", DAC_OVERRIDE | FOWNER | KILL);
    assert!(kept.contains(&janitor), "{kept:?}");
}

#[test]
fn another_process_of_the_same_user_cannot_look_into_it() {
    let world = World::new();
    give(&world.home.path(), OWNER);
    chown(world.home.key(), Some(OWNER), Some(OWNER)).unwrap();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    let interceptor = asking.interceptor();
    let [witness] = children(interceptor)[..] else { panic!("one witness") };
    for pid in [interceptor, witness] {
        assert!(status(pid, "Uid").starts_with(&OWNER.to_string()));
        // The attempts work on a process that does not defend itself.
        let attack = "import ctypes, os, subprocess, sys\n\
            libc = ctypes.CDLL(None, use_errno=True)\n\
            other = subprocess.Popen(['sleep', '20'], stdout=-3, stderr=-3)\n\
            def can(attempt):\n\
            \x20   try: return attempt() is not False\n\
            \x20   except OSError: return False\n\
            def all(pid): return [\n\
            \x20   can(lambda: open(f'/proc/{pid}/mem', 'rb')), can(lambda: open(f'/proc/{pid}/environ', 'rb').read()),\n\
            \x20   can(lambda: open(f'/proc/{pid}/maps', 'rb').read()), can(lambda: os.listdir(f'/proc/{pid}/fd')),\n\
            \x20   can(lambda: libc.syscall(438, os.pidfd_open(pid), 0, 0) >= 0), libc.ptrace(0x4206, pid, 0, 0) == 0]\n\
            print(all(other.pid), all(int(sys.argv[1])))\n\
            other.kill()";
        let id = OWNER.to_string();
        let mut outside = command("setpriv");
        outside.args(["--reuid", &id, "--regid", &id, "--clear-groups", "/usr/bin/python3", "-c", attack]);
        let said = finish(outside.arg(pid.to_string())).ok();
        let (control, ours) = said.trim().split_once("] [").unwrap();
        assert!(!control.contains("False"), "the attack bites: {said}");
        assert!(!ours.contains("True"), "{said}");
    }
    assert_eq!(asking.ask(), "200");
}

#[test]
fn the_agent_cannot_see_or_signal_it() {
    let world = World::new();
    let attack = "import os, sys\n\
        print('ready', flush=True)\n\
        pid = int(input())\n\
        def name(attempt):\n\
        \x20   try: attempt(); return 'done'\n\
        \x20   except OSError as error: return type(error).__name__\n\
        print(name(lambda: os.kill(pid, 0)), name(lambda: open(f'/proc/{pid}/mem')), name(lambda: os.pidfd_open(pid)))";
    let mut agent = Agent::started(world.home.run_agent(["/usr/bin/python3", "-c", attack]));
    let interceptor = agent.interceptor();
    agent.child.stdin.as_mut().unwrap().write_all(format!("{interceptor}\n").as_bytes()).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(said.trim(), "ProcessLookupError FileNotFoundError ProcessLookupError");
}

#[test]
fn a_crash_leaves_no_core() {
    let world = World::new();
    let mut asking = Asking::start(&world);
    assert_eq!(asking.ask(), "200");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", asking.interceptor())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let id = asking.interceptor().to_string();
    asking.signal(Signal::SIGABRT);
    asking.until("000");
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let folder = Path::new(pattern.trim()).parent().filter(|folder| folder.is_absolute());
    for folder in [Path::new("/tmp"), Path::new("/"), folder.unwrap_or(Path::new("/tmp")), &world.home.path()]
    {
        let cores = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
        let cores: Vec<_> = cores.filter(|name| name.to_string_lossy().contains("core")).collect();
        assert!(cores.iter().all(|name| !name.to_string_lossy().ends_with(&id)), "{cores:?}");
    }
}
