//! The privileges of each of our processes while an agent runs, and access to them.

use std::os::unix::fs::chown;
use std::path::Path;

use nix::sys::signal::Signal;

use super::*;
use crate::support::process::{command, run};

pub(crate) const NONE: u64 = 0;
pub(crate) const SYS_PTRACE: u64 = 1 << 19;
const KILL: u64 = 1 << 5;
const DAC_OVERRIDE: u64 = 1 << 1;
const FOWNER: u64 = 1 << 3;

/// A uid without an account.
pub(crate) const OWNER: u32 = 54_322;

/// Asserts that `pid` has exactly these capabilities and cannot gain more.
pub(crate) fn assert_confined(pid: u32, capabilities: u64) {
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(proc_status(pid, set), format!("{capabilities:016x}"), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(proc_status(pid, set), format!("{NONE:016x}"), "{set}");
    }
    assert_eq!(proc_status(pid, "NoNewPrivs"), "1");
}

/// Changes the owner of `folder` and everything in it.
pub(crate) fn chown_all(folder: &Path, owner: u32) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            chown_all(&entry.path(), owner);
        }
        chown(entry.path(), Some(owner), Some(owner)).unwrap();
    }
    chown(folder, Some(owner), Some(owner)).unwrap();
}

#[test]
fn processes_keep_minimal_privileges() {
    let fixture = Fixture::new();
    let agent = WaitingAgent::start(&fixture.home);
    let launcher = agent.child.id();
    assert_confined(launcher, KILL);

    let interceptor = agent.interceptor();
    assert_confined(interceptor, NONE);
    for thread in std::fs::read_dir(format!("/proc/{interceptor}/task")).unwrap().flatten() {
        let thread = thread.file_name().to_str().unwrap().parse().unwrap();
        assert_confined(thread, NONE);
        assert_eq!(proc_status(thread, "Seccomp"), "2");
    }
    let [inspector] = children(interceptor)[..] else { panic!("one process inspector") };
    assert_confined(inspector, SYS_PTRACE);
    assert_eq!(proc_status(inspector, "Seccomp"), "2");
    let descriptors = std::fs::read_dir(format!("/proc/{inspector}/fd")).unwrap().count();
    assert_eq!(descriptors, 1, "the process inspector holds its channel and nothing else");

    let capabilities: Vec<String> =
        children(launcher).into_iter().map(|pid| proc_status(pid, "CapEff")).collect();
    let cleanup = format!("{:016x}", DAC_OVERRIDE | FOWNER | KILL);
    assert!(capabilities.contains(&cleanup), "{capabilities:?}");
}

#[test]
fn interceptor_is_not_inspectable_by_same_user() {
    let fixture = Fixture::new();
    chown_all(&fixture.home.path(), OWNER);
    chown(fixture.home.key(), Some(OWNER), Some(OWNER)).unwrap();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    let interceptor = asking.interceptor();
    let [inspector] = children(interceptor)[..] else { panic!("one process inspector") };
    for pid in [interceptor, inspector] {
        assert!(proc_status(pid, "Uid").starts_with(&OWNER.to_string()));
        // Control: the attempts succeed on an unprotected process.
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
        let output = run(outside.arg(pid.to_string())).ok();
        let (control, ours) = output.trim().split_once("] [").unwrap();
        assert!(!control.contains("False"), "the attack bites: {output}");
        assert!(!ours.contains("True"), "{output}");
    }
    assert_eq!(asking.request(), "200");
}

#[test]
fn agent_cannot_see_or_signal_interceptor() {
    let fixture = Fixture::new();
    let attack = "import os, sys\n\
        print('ready', flush=True)\n\
        pid = int(input())\n\
        def name(attempt):\n\
        \x20   try: attempt(); return 'done'\n\
        \x20   except OSError as error: return type(error).__name__\n\
        print(name(lambda: os.kill(pid, 0)), name(lambda: open(f'/proc/{pid}/mem')), name(lambda: os.pidfd_open(pid)))";
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["/usr/bin/python3", "-c", attack]));
    let interceptor = agent.interceptor();
    agent.child.stdin.as_mut().unwrap().write_all(format!("{interceptor}\n").as_bytes()).unwrap();
    let mut output = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut output).unwrap();
    assert_eq!(output.trim(), "ProcessLookupError FileNotFoundError ProcessLookupError");
}

#[test]
fn crash_leaves_no_core_dump() {
    let fixture = Fixture::new();
    let mut asking = RequestingAgent::start(&fixture);
    assert_eq!(asking.request(), "200");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", asking.interceptor())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let id = asking.interceptor().to_string();
    asking.signal(Signal::SIGABRT);
    asking.wait_for_status("000");
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let folder = Path::new(pattern.trim()).parent().filter(|folder| folder.is_absolute());
    for folder in
        [Path::new("/tmp"), Path::new("/"), folder.unwrap_or(Path::new("/tmp")), &fixture.home.path()]
    {
        let cores = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
        let cores: Vec<_> = cores.filter(|name| name.to_string_lossy().contains("core")).collect();
        assert!(cores.iter().all(|name| !name.to_string_lossy().ends_with(&id)), "{cores:?}");
    }
}
