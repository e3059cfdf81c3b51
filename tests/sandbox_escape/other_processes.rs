//! Other processes, and files that programs outside the sandbox would execute later.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use super::attack_range::AttackRange;
use crate::end_to_end::{Fixture, SECRET, WaitingAgent};
use crate::launch::{Running, launch};
use crate::support::process::{command, run};

/// The interceptor holds secrets. Neither its agent nor another program of the user nobody can read it.
#[test]
fn reading_interceptor_process_is_blocked() {
    let fixture = Fixture::new();
    fixture.curl(&[], "/").ok();
    let agent = WaitingAgent::start(&fixture.home);
    let interceptor = agent.interceptor();
    let attack = format!(
        "import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for pid in ({interceptor}, 1):
    for name in ('mem', 'environ', 'maps', 'fd', 'root/etc/shadow'):
        path = '/proc/%d/%s' % (pid, name)
        try: print(pid, name, len(os.listdir(path) if name == 'fd' else open(path, 'rb').read(100)))
        except OSError: pass
    if os.getuid() and libc.ptrace(16, pid, 0, 0) == 0: print(pid, 'ptrace')",
    );
    let attack = format!("import os\n{attack}");
    let seen = run(&mut fixture.home.run_agent(["/usr/bin/python3", "-c", &attack])).ok();
    assert_eq!(seen, "", "neither its first process nor the interceptor");
    // For the host's own programs of that user: the pid exists, but the process is not readable.
    let outside = run(command("setpriv").args([
        "--reuid",
        "65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        &attack,
    ]));
    assert_eq!(outside.stdout, "", "{outside:?}");
    // Control: as root it works.
    let root = run(command("/usr/bin/python3").args(["-c", &attack])).stdout;
    assert!(root.contains(&format!("{interceptor} environ")), "{root}");
}

#[test]
fn reading_same_user_processes_is_blocked() {
    let mut sibling = command("setpriv");
    let mut sibling = sibling
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", "echo ready; read line"])
        .env("PLANTED", SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(sibling.stdout.take().unwrap()), &mut line)
        .unwrap();
    let attack = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; true";
    let inside = run(&mut launch(&[], &["sh", "-c", attack])).ok();
    let outside = run(command("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"])
        .args(["sh", "-c", attack]));
    sibling.kill().unwrap();
    sibling.wait().unwrap();
    assert!(!inside.contains(SECRET));
    assert!(outside.stdout.contains(SECRET), "the attack does not bite");
}

/// Files that the kernel or a daemon would execute as root. Nothing is written: opening for writing is the
/// attack.
#[test]
fn writing_root_executed_files_is_blocked() {
    let attack = r"
import glob, os
for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sysrq-trigger', '/etc/crontab', '/etc/passwd',
             '/etc/ld.so.preload', '/etc/profile', '/etc/environment', '/root/.bashrc', '/sys/kernel/uevent_helper',
             '/sys/fs/cgroup/release_agent', '/proc/sys/fs/binfmt_misc/register', '/dev/mem', '/dev/kmsg'):
    try: os.close(os.open(path, os.O_WRONLY)); print(path)
    except OSError: pass
for folder in ('/etc/cron.d', '/var/spool/cron', '/etc/systemd/system', '/etc/profile.d', '/usr/local/bin', '/sys/fs/bpf', '/run', '/etc/ld.so.conf.d'):
    if os.access(folder, os.W_OK): print(folder)";
    for options in [&[][..], &["--user", "root"]] {
        let outcome = run(&mut launch(options, &["/usr/bin/python3", "-c", attack]));
        assert_eq!(outcome.ok(), "", "{options:?}");
    }
    // The host's uid 0, even without capabilities: the reason why an agent never has it.
    let bare = run(command("setpriv").args([
        "--bounding-set=-all",
        "--inh-caps=-all",
        "/usr/bin/python3",
        "-c",
        attack,
    ]));
    assert!(bare.stdout.contains("core_pattern") && bare.stdout.contains("/etc/passwd"), "{bare:?}");
}

/// A set-user-id program or a file capability does not elevate its caller.
#[test]
fn setuid_and_file_capabilities_are_ineffective() {
    let range = AttackRange::new();
    let open = fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
    let id = folder.path().join("id");
    fs::copy("/usr/bin/id", &id).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();
    let id = id.to_str().unwrap();
    assert_eq!(run(&mut launch(&[], &[id, "-u"])).ok(), "65534\n");
    let mut bare = command("setpriv");
    let outside = run(bare.args(["--reuid", "65534", "--clear-groups", id, "-u"])).ok();
    assert_eq!(outside, "0\n", "the folder's file system honours the bit");
    // Python with CAP_NET_RAW, as some systems give to `ping`.
    let python = folder.path().join("python");
    fs::copy(fs::canonicalize("/usr/bin/python3").unwrap(), &python).unwrap();
    run(command("setcap").args(["cap_net_raw+ep", python.to_str().unwrap()])).ok();
    let attack =
        "sent(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 253).sendto(mark, (there4, 0)))";
    let mut words = range.python(attack);
    words[0] = python.to_str().unwrap().to_owned();
    run(launch(&[], &[]).args(&words));
    assert!(range.packets().is_empty());
    run(command("setpriv").args(["--reuid", "65534", "--clear-groups"]).args(&words));
    assert!(!range.packets().is_empty(), "the attack does not bite");
}

/// Files that a shell, git or a desktop would execute for the user later are read-only where they exist.
#[test]
fn startup_files_and_git_hooks_are_read_only() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for path in [".git", ".git/hooks"] {
        fs::create_dir(folder.path().join(path)).unwrap();
        std::os::unix::fs::chown(folder.path().join(path), Some(65534), Some(65534)).unwrap();
    }
    let attack = "echo evil > .git/hooks/pre-commit; ln -s x .git/hooks/post-merge; mkdir .git/hooks/x
        mv .git/hooks .git/old; mkdir .git/hooks; echo evil > .git/hooks/pre-push";
    run(launch(&[], &["sh", "-c", attack]).current_dir(folder.path()));
    assert_eq!(fs::read_dir(folder.path().join(".git/hooks")).unwrap().count(), 0);
    let words = ["--reuid", "65534", "--clear-groups", "sh", "-c", attack];
    run(command("setpriv").args(words).current_dir(folder.path()));
    assert_ne!(fs::read_dir(folder.path().join(".git/hooks")).unwrap().count(), 0, "it does not bite");
}

/// A process that outlives the command would run unobserved.
#[test]
fn outliving_the_run_is_prevented() {
    let mut run = Running::start(&[], "setsid sh -c 'trap \"\" HUP TERM; sleep 600' & echo ready; read line");
    let cgroup = run.traces().remove(0);
    drop(run.input.take());
    run.child.wait().unwrap();
    assert!(!cgroup.exists(), "the cgroup, and so every process in it, is gone");
}
