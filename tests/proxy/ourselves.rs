//! The proxy reads what programs send it: what it may still do, should one of them take it over.

use std::os::unix::fs::chown;

use super::{Proxy, START};
use crate::harden::ourselves::{NONE, OWNER, SYS_PTRACE, assert_confined, give};
use crate::harden::{children, status};
use crate::spine::World;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{command, finish};
use crate::support::python::{PYTHON, program};

#[test]
fn the_proxy_has_no_privilege_and_its_witness_one() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    assert_eq!(proxy.ask(&[], "/health").0, "200");
    let pid = proxy.child.id();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let thread = thread.file_name().to_str().unwrap().parse().unwrap();
        assert_confined(thread, NONE);
        assert_eq!(status(thread, "Seccomp"), "2");
    }
    let [witness] = children(pid)[..] else { panic!("one witness") };
    assert_confined(witness, SYS_PTRACE);
    assert_eq!(status(witness, "Seccomp"), "2");
    let held = std::fs::read_dir(format!("/proc/{witness}/fd")).unwrap().count();
    assert_eq!(held, 1, "the witness holds its line and nothing else");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn whoever_takes_it_over_finds_few_doors() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let asked = || {
        let answer = proxy.curl(&["-H", "Authorization: Bearer AS_SECRET_API_KEY", &world.url("/echo-raw")]);
        assert_eq!(answer.ok(), "Bearer [REDACTED_BY_AGENTSECRETS]");
    };
    asked();
    let mut attack = command(PYTHON);
    attack.args(["-c", &program("proxy/inject.py"), &proxy.child.id().to_string()]);
    let said = finish(attack.arg(world.home.path())).ok();
    assert_eq!(
        said,
        "getpid done\nexecve EPERM\nfork EPERM\nkill EPERM\nptrace EPERM\nbpf EPERM\nmount EPERM\n\
         setuid EPERM\npacket socket EPERM\nexecutable memory EPERM\nread its home done\n\
         read outside EACCES\nwrite outside EACCES\nanother's memory EACCES\n"
    );
    // It noticed nothing.
    asked();
}

#[test]
fn a_proxy_whose_witness_is_gone_believes_nobody() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let [witness] = children(proxy.child.id())[..] else { panic!("one witness") };
    let witness = nix::unistd::Pid::from_raw(witness as i32);
    nix::sys::signal::kill(witness, nix::sys::signal::Signal::SIGKILL).unwrap();
    let url = world.url("/echo");
    let outcome = proxy.curl(&["-H", "Authorization: Bearer AS_SECRET_API_KEY", &url]);
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    assert!(world.api.received().is_empty());
    assert_eq!(world.home.audit()[0]["identity_level"], "anonymous");
}

#[test]
fn a_proxy_of_an_ordinary_user_is_confined_too_and_serves_that_user() {
    let world = World::new();
    give(&world.home.path(), OWNER);
    chown(world.home.key(), Some(OWNER), Some(OWNER)).unwrap();
    let id = OWNER.to_string();
    let user = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    let mut started = world.home.beside([&user[..], &[AGENTSECRETS], &START].concat());
    for (name, value) in world.home.agentsecrets(["status"]).get_envs() {
        value.map(|value| started.env(name, value));
    }
    let proxy = Proxy::started(&world, started);
    let pid = proxy.child.id();
    let [witness] = children(pid)[..] else { panic!("one witness") };
    for process in [pid, witness] {
        assert!(status(process, "Uid").starts_with(&id));
        for (name, value) in [("CapEff", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
            assert_eq!(status(process, name), value, "{name}");
        }
    }
    let target = format!("X-AS-Target-URL: {}", world.url("/echo-raw"));
    let endpoint = format!("http://localhost:{}/proxy", proxy.port);
    let asked = ["/usr/bin/curl", "-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY", &endpoint];
    let mut curl = command(user[0]);
    let answer = finish(curl.args(&user[1..]).args(asked)).ok();
    assert_eq!(answer, "Bearer [REDACTED_BY_AGENTSECRETS]");
    // Root is another user.
    let refused = finish(command(asked[0]).args(&asked[1..])).ok();
    assert!(refused.contains("another user"), "{refused}");
}

#[test]
fn root_in_another_users_home_keeps_what_it_takes_to_write_there() {
    let world = World::new();
    give(&world.home.path(), OWNER);
    chown(world.home.key(), Some(OWNER), Some(OWNER)).unwrap();
    let proxy = Proxy::of(&world);
    assert_eq!(status(proxy.child.id(), "CapEff"), "000000000000000b");
    let answer = proxy.curl(&["-H", "Authorization: Bearer AS_SECRET_API_KEY", &world.url("/echo-raw")]);
    assert_eq!(answer.ok(), "Bearer [REDACTED_BY_AGENTSECRETS]");
}
