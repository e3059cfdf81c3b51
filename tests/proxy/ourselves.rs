//! The proxy reads what programs send it: what it may still do, should one of them take it over.

use super::Proxy;
use crate::harden::ourselves::{NONE, SYS_PTRACE, assert_confined};
use crate::harden::{children, status};
use crate::spine::World;
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
