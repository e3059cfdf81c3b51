//! Other processes, and what would run later outside the sandbox.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use super::range::Range;
use crate::launch::{Running, launch};
use crate::spine::{Agent, SECRET, World};
use crate::support::process::{command, finish};

/// The interceptor holds secrets. Neither its agent nor another program of nobody's can read it.
#[test]
fn reading_the_interceptor() {
    let world = World::new();
    world.curl(&[], "/").ok();
    let agent = Agent::waiting(&world.home);
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
    let seen = finish(&mut world.home.run_agent(["/usr/bin/python3", "-c", &attack])).ok();
    assert_eq!(seen, "", "neither its first process nor the interceptor");
    // Of the host's own programs of that user: the pid is there, and is not to be read either.
    let outside = finish(command("setpriv").args([
        "--reuid",
        "65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        &attack,
    ]));
    assert_eq!(outside.stdout, "", "{outside:?}");
    // As root it can be done: the attack would see it.
    let root = finish(command("/usr/bin/python3").args(["-c", &attack])).stdout;
    assert!(root.contains(&format!("{interceptor} environ")), "{root}");
}

#[test]
fn reading_what_other_programs_of_the_same_user_hold() {
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
    let inside = finish(&mut launch(&[], &["sh", "-c", attack])).ok();
    let outside = finish(
        command("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"])
            .args(["sh", "-c", attack]),
    );
    sibling.kill().unwrap();
    sibling.wait().unwrap();
    assert!(!inside.contains(SECRET));
    assert!(outside.stdout.contains(SECRET), "the attack does not bite");
}

/// What the kernel or a daemon would run as root. Nothing is written: opening for writing is the attack.
#[test]
fn writing_what_root_would_run() {
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
        let outcome = finish(&mut launch(options, &["/usr/bin/python3", "-c", attack]));
        assert_eq!(outcome.ok(), "", "{options:?}");
    }
    // The host's uid 0, even without any capability: why an agent never has it.
    let bare = finish(command("setpriv").args([
        "--bounding-set=-all",
        "--inh-caps=-all",
        "/usr/bin/python3",
        "-c",
        attack,
    ]));
    assert!(bare.stdout.contains("core_pattern") && bare.stdout.contains("/etc/passwd"), "{bare:?}");
}

/// A program that makes its caller root does not: neither by mode nor by file capability.
#[test]
fn setuid_programs_and_file_capabilities() {
    let range = Range::new();
    let open = fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
    let id = folder.path().join("id");
    fs::copy("/usr/bin/id", &id).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();
    let id = id.to_str().unwrap();
    assert_eq!(finish(&mut launch(&[], &[id, "-u"])).ok(), "65534\n");
    let mut bare = command("setpriv");
    let outside = finish(bare.args(["--reuid", "65534", "--clear-groups", id, "-u"])).ok();
    assert_eq!(outside, "0\n", "the folder's file system honours the bit");
    // Python with the right to make packet sockets, as some systems give to `ping`.
    let python = folder.path().join("python");
    fs::copy(fs::canonicalize("/usr/bin/python3").unwrap(), &python).unwrap();
    finish(command("setcap").args(["cap_net_raw+ep", python.to_str().unwrap()])).ok();
    let attack =
        "sent(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 253).sendto(mark, (there4, 0)))";
    let mut words = range.python(attack);
    words[0] = python.to_str().unwrap().to_owned();
    finish(launch(&[], &[]).args(&words));
    assert!(range.packets().is_empty());
    finish(command("setpriv").args(["--reuid", "65534", "--clear-groups"]).args(&words));
    assert!(!range.packets().is_empty(), "the attack does not bite");
}

/// What a shell, git or a desktop would run for the person later is read-only where it exists.
#[test]
fn start_up_files_and_hooks() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for path in [".git", ".git/hooks"] {
        fs::create_dir(folder.path().join(path)).unwrap();
        std::os::unix::fs::chown(folder.path().join(path), Some(65534), Some(65534)).unwrap();
    }
    let attack = "echo evil > .git/hooks/pre-commit; ln -s x .git/hooks/post-merge; mkdir .git/hooks/x
        mv .git/hooks .git/old; mkdir .git/hooks; echo evil > .git/hooks/pre-push";
    finish(launch(&[], &["sh", "-c", attack]).current_dir(folder.path()));
    assert_eq!(fs::read_dir(folder.path().join(".git/hooks")).unwrap().count(), 0);
    let words = ["--reuid", "65534", "--clear-groups", "sh", "-c", attack];
    finish(command("setpriv").args(words).current_dir(folder.path()));
    assert_ne!(fs::read_dir(folder.path().join(".git/hooks")).unwrap().count(), 0, "it does not bite");
}

/// A process that outlives the command would go on when nobody looks.
#[test]
fn staying_behind() {
    let mut run = Running::start(&[], "setsid sh -c 'trap \"\" HUP TERM; sleep 600' & echo ready; read line");
    let cgroup = run.traces().remove(0);
    drop(run.input.take());
    run.child.wait().unwrap();
    assert!(!cgroup.exists(), "the cgroup, and so every process in it, is gone");
}
