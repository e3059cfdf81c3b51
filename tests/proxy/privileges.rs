//! The proxy reads untrusted input: its remaining privileges, should it be taken over.

use std::os::unix::fs::chown;

use super::{Proxy, START_ARGUMENTS};
use crate::end_to_end::Fixture;
use crate::hardening::privileges::{NONE, OWNER, SYS_PTRACE, assert_confined, chown_all};
use crate::hardening::{children, proc_status};
use crate::support::home::AGENTSECRETS;
use crate::support::process::{command, run};
use crate::support::python::{PYTHON, program};

#[test]
fn proxy_is_unprivileged_and_inspector_has_ptrace_only() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    assert_eq!(proxy.request(&[], "/health").0, "200");
    let pid = proxy.child.id();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let thread = thread.file_name().to_str().unwrap().parse().unwrap();
        assert_confined(thread, NONE);
        assert_eq!(proc_status(thread, "Seccomp"), "2");
    }
    let [inspector] = children(pid)[..] else { panic!("one process inspector") };
    assert_confined(inspector, SYS_PTRACE);
    assert_eq!(proc_status(inspector, "Seccomp"), "2");
    let descriptors = std::fs::read_dir(format!("/proc/{inspector}/fd")).unwrap().count();
    assert_eq!(descriptors, 1, "the process inspector holds its channel and nothing else");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn proxy_seccomp_limits_system_calls() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let request = || {
        let answer =
            proxy.curl(&["-H", "Authorization: Bearer AS_SECRET_API_KEY", &fixture.url("/echo-raw")]);
        assert_eq!(answer.ok(), "Bearer [REDACTED_BY_AGENTSECRETS]");
    };
    request();
    let mut attack = command(PYTHON);
    attack.args(["-c", &program("proxy/inject.py"), &proxy.child.id().to_string()]);
    let output = run(attack.arg(fixture.home.path())).ok();
    assert_eq!(
        output,
        "getpid done\nexecve EPERM\nfork EPERM\nkill EPERM\nptrace EPERM\nbpf EPERM\nmount EPERM\n\
         setuid EPERM\npacket socket EPERM\nexecutable memory EPERM\nread its home done\n\
         read outside EACCES\nwrite outside EACCES\nanother's memory EACCES\n"
    );
    // The proxy has not noticed.
    request();
}

#[test]
fn dead_inspector_denies_callers() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let [inspector] = children(proxy.child.id())[..] else { panic!("one process inspector") };
    let inspector = nix::unistd::Pid::from_raw(inspector as i32);
    nix::sys::signal::kill(inspector, nix::sys::signal::Signal::SIGKILL).unwrap();
    let url = fixture.url("/echo");
    let outcome = proxy.curl(&["-H", "Authorization: Bearer AS_SECRET_API_KEY", &url]);
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    assert!(fixture.api.received().is_empty());
    assert_eq!(fixture.home.audit()[0]["identity_level"], "anonymous");
}

#[test]
fn unprivileged_proxy_is_confined() {
    let fixture = Fixture::new();
    chown_all(&fixture.home.path(), OWNER);
    chown(fixture.home.key(), Some(OWNER), Some(OWNER)).unwrap();
    let id = OWNER.to_string();
    let user = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    let mut started = fixture.home.command_outside([&user[..], &[AGENTSECRETS], &START_ARGUMENTS].concat());
    for (name, value) in fixture.home.agentsecrets(["status"]).get_envs() {
        value.map(|value| started.env(name, value));
    }
    let proxy = Proxy::start_command(&fixture, started);
    let pid = proxy.child.id();
    let [inspector] = children(pid)[..] else { panic!("one process inspector") };
    for process in [pid, inspector] {
        assert!(proc_status(process, "Uid").starts_with(&id));
        for (name, value) in [("CapEff", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
            assert_eq!(proc_status(process, name), value, "{name}");
        }
    }
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo-raw"));
    let endpoint = format!("http://localhost:{}/proxy", proxy.port);
    let request = ["/usr/bin/curl", "-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY", &endpoint];
    let mut curl = command(user[0]);
    let answer = run(curl.args(&user[1..]).args(request)).ok();
    assert_eq!(answer, "Bearer [REDACTED_BY_AGENTSECRETS]");
    // Root is another user.
    let refused = run(command(request[0]).args(&request[1..])).ok();
    assert!(refused.contains("another user"), "{refused}");
}

#[test]
fn root_proxy_in_user_home_keeps_write_access() {
    let fixture = Fixture::new();
    chown_all(&fixture.home.path(), OWNER);
    chown(fixture.home.key(), Some(OWNER), Some(OWNER)).unwrap();
    let proxy = Proxy::start(&fixture);
    assert_eq!(proc_status(proxy.child.id(), "CapEff"), "000000000000000b");
    let answer = proxy.curl(&["-H", "Authorization: Bearer AS_SECRET_API_KEY", &fixture.url("/echo-raw")]);
    assert_eq!(answer.ok(), "Bearer [REDACTED_BY_AGENTSECRETS]");
}
