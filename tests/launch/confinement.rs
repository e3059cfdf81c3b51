//! The agent's view of the system, and denied operations.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Running, launch, launcher, run_script, script_output};

/// A world-accessible folder in `/tmp`.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn agent_of_root_is_nobody() {
    let text = script_output("id -u; id -G; cat /proc/self/status");
    assert!(text.starts_with("65534\n65534\n"), "{text}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(text.contains(&format!("{set}:\t0000000000000000\n")), "{set}");
    }
    assert!(text.contains("NoNewPrivs:\t1\n") && text.contains("Seccomp:\t2\n"));
}

#[test]
fn user_root_is_mapped_to_nobody() {
    let folder = open_folder();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let text = format!(
        "id -u; grep CapBnd /proc/self/status; touch {}/made; : > /etc/passwd",
        folder.path().display()
    );
    let output = launch(&["--user", "root"], &["sh", "-c", &text]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed, "0\nCapBnd:\t0000000000000000\n");
    assert!(!output.status.success(), "/etc/passwd is not its own");
    let made = std::fs::metadata(folder.path().join("made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 65534);
}

#[test]
fn agent_sees_only_own_processes() {
    let processes = script_output("ls /proc | grep -c '^[0-9]*$'").trim().parse::<u32>().unwrap();
    assert!(processes <= 6, "{processes}");
    assert!(!run_script("cat /proc/1/environ").status.success());
}

#[test]
fn agent_inherits_no_descriptors() {
    assert_eq!(script_output("ls /proc/$$/fd"), "0\n1\n2\n");
}

#[test]
fn kernel_controls_are_hidden() {
    for folder in ["/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing"] {
        assert_eq!(script_output(&format!("ls {folder} 2>/dev/null; true")), "", "{folder}");
    }
    assert!(script_output("cat /proc/self/cgroup").lines().any(|line| line == "0::/"));
}

#[test]
fn agent_is_in_hooked_cgroup() {
    let mut run = Running::start(&[], "echo ready; read line");
    let cgroup = run.traces().remove(0);
    let inside = std::fs::read_to_string(cgroup.join("agent/cgroup.procs")).unwrap();
    assert_eq!(inside.lines().count(), 2, "the first process and the shell");
    assert_eq!(std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap(), "");
    drop(run.input.take());
    run.child.wait().unwrap();
}

#[test]
fn home_and_key_file_are_hidden() {
    let folder = open_folder();
    let (home, key) = (folder.path().join("home"), folder.path().join("key"));
    std::fs::create_dir(&home).unwrap();
    for file in [&home.join("vault"), &key] {
        std::fs::write(file, "precious").unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let text = format!("cat {0}/vault {1}; ls -A {0}; cat {1}; true", home.display(), key.display());
    let output = launch(&[], &["sh", "-c", &text])
        .env("AGENTSECRETS_HOME", &home)
        .env("AGENTSECRETS_VAULT_KEY_FILE", &key)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
}

#[test]
fn agent_cannot_create_missing_home() {
    let folder = open_folder();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let home = folder.path().join("ours");
    let attack = format!("mkdir {0}; echo version: 1 > {0}/policy.yaml; mv {0} {0}-away", home.display());
    let output = launch(&[], &["sh", "-c", &attack]).env("AGENTSECRETS_HOME", &home).output().unwrap();
    assert!(!output.status.success());
    assert!(home.is_dir() && !home.join("policy.yaml").exists());
}

#[test]
fn network_socket_as_stdio_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let born_outside = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stdin = Stdio::from(std::os::fd::OwnedFd::from(born_outside));
    let output = launch(&[], &["echo", "started"]).stdin(stdin).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(output.stdout.is_empty());
}

#[test]
fn outside_unix_socket_is_unreachable() {
    let folder = open_folder();
    let path = folder.path().join("daemon.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let seen =
        script_output(&format!("[ -S {0} ] && echo socket; [ -c {0} ] && echo covered", path.display()));
    assert_eq!(seen, "covered\n");
}

#[test]
fn git_hooks_and_config_are_read_only() {
    let folder = open_folder();
    let repository = folder.path().join("repository");
    for path in ["repository", "repository/.git", "repository/.git/hooks"] {
        std::fs::create_dir(folder.path().join(path)).unwrap();
    }
    std::fs::write(repository.join(".git/config"), "[core]\n").unwrap();
    for path in ["", ".git", ".git/hooks", ".git/config"] {
        chown(repository.join(path), Some(65534), Some(65534)).unwrap();
    }
    let attack = "echo x > .git/hooks/pre-commit && echo hook
        echo x >> .git/config && echo configuration
        mv .git away && echo moved
        mv .git/hooks .git/away && echo hooks moved
        echo x > file && echo file && echo x > .git/index && echo index";
    let output = launch(&[], &["sh", "-c", attack]).current_dir(&repository).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "file\nindex\n");
}

#[test]
fn startup_files_are_read_only_and_new_ones_reported() {
    let folder = open_folder();
    let home = folder.path().join("keeper");
    for path in ["", ".ssh", ".config", ".config/git"] {
        std::fs::create_dir(home.join(path)).unwrap();
    }
    for path in [".bashrc", ".ssh/config", ".config/git/config"] {
        std::fs::write(home.join(path), "mine\n").unwrap();
    }
    for path in ["", ".ssh", ".config", ".config/git", ".bashrc", ".ssh/config", ".config/git/config"] {
        chown(home.join(path), Some(54321), Some(54321)).unwrap();
    }
    let users = folder.path().join("passwd");
    let known = std::fs::read_to_string("/etc/passwd").unwrap();
    std::fs::write(&users, format!("{known}keeper:x:54321:54321::{}:/bin/sh\n", home.display())).unwrap();
    let attack = "cd; for file in .bashrc .ssh/authorized_keys .config/git/config .zshenv plain; do
        echo evil >> $file && echo $file; done 2>/dev/null
        mv .config away && echo .config; mv .ssh away && echo .ssh; rm -f .bashrc && echo gone";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", r#"mount --bind "$1" /etc/passwd && shift && exec "$@""#, "sh"])
        .args([&users, &launcher()])
        .args(["--user", "keeper", "--", "sh", "-c", attack])
        .env("AGENTSECRETS_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"))
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), ".zshenv\nplain\n", "{printed}");
    assert!(printed.contains(".zshenv is new"), "{printed}");
    assert_eq!(std::fs::read_to_string(home.join(".bashrc")).unwrap(), "mine\n");
    assert!(!Path::new(&home.join(".bash_profile")).exists(), "nothing is left behind");
}

#[test]
fn namespaces_mount_and_ptrace_are_denied() {
    for attack in ["unshare -U true", "unshare -n true", "mount -t tmpfs none /mnt", "nsenter -t 1 -m true"] {
        assert!(!run_script(attack).status.success(), "{attack}");
    }
}

#[test]
fn abstract_socket_is_unreachable() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("agentsecrets-tests-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let connect = format!("use Socket; socket(S, 1, 1, 0); connect(S, pack(\"S\", 1) . \"\\0{name}\")");
    assert_eq!(syscall_result(&connect), libc::EPERM.to_string(), "Landlock scopes it from Linux 6.12 on");
}

/// The kernel's result for a system call made by a perl script.
fn syscall_result(attempt: &str) -> String {
    script_output(&format!("perl -e '{attempt} and print \"done\" or print $!+0'"))
}

#[test]
fn only_hooked_socket_families_are_allowed() {
    let (eperm, done) = (libc::EPERM.to_string(), "done");
    for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH, libc::AF_XDP] {
        assert_eq!(syscall_result(&format!("socket(S, {family}, 3, 0)")), eperm, "{family}");
        assert_eq!(syscall_result(&format!("socketpair(S, T, {family}, 1, 0)")), eperm, "{family}");
    }
    assert_eq!(syscall_result("socket(S, 2, 1, 0)"), done);
    assert_eq!(syscall_result("socket(S, 10, 2, 0)"), done);
    assert_eq!(syscall_result("socketpair(S, T, 1, 1, 0)"), done);
    // The kernel reads only the low half of the argument.
    assert_eq!(syscall_result("0 <= syscall(41, (1 << 32) | 17, 3, 0)"), eperm);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn seccomp_denies_calls_in_every_abi() {
    let call = |number: i64| syscall_result(&format!("0 <= syscall({number}, 0, 0, 0, 0)"));
    for number in [libc::SYS_bpf, libc::SYS_setns, libc::SYS_mount, libc::SYS_pidfd_getfd] {
        assert_eq!(call(number), libc::EPERM.to_string(), "{number}");
    }
    for number in
        [libc::SYS_io_uring_setup, libc::SYS_clone3, 0x4000_0000 + libc::SYS_socket, 0x4000_0000 + 514]
    {
        assert_eq!(call(number), libc::ENOSYS.to_string(), "{number}");
    }
    for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWNS] {
        assert_eq!(
            syscall_result(&format!("0 <= syscall(56, {flag} | 17, 0, 0, 0, 0)")),
            libc::EPERM.to_string()
        );
    }
}

#[test]
fn tiocsti_is_denied() {
    let typing = "ioctl(STDIN, 0x5412, my $key = \"x\")";
    assert_eq!(syscall_result(typing), libc::EPERM.to_string());
    assert_eq!(syscall_result("ioctl(STDIN, 0x541c, my $key = \"x\")"), libc::EPERM.to_string());
}
