//! Killed, restarted or upgraded in any order: an agent is served or offline, never unguarded.

use super::{Driver, chart_pod};
use crate::containers::egress::EgressProbe;
use crate::containers::lifecycle::assert_identified_anew;
use crate::containers::testbed::{self, IDLE_COMMAND};

#[test]
fn agent_is_offline_while_sidecar_is_dead() {
    let pod = chart_pod(Driver::Systemd);
    let sandbox = pod.start_sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    let (pins, before) = (pod.pins(), sidecar.audit().len());
    assert_eq!((pins.len(), before), (1, 1));
    sidecar.kill();
    assert_eq!(agent.curl(&[], &pod.url("/echo")).code, Some(7));
    let direct = format!("http://{}:{}/", pod.netns.local4(), pod.api.port());
    assert_ne!(agent.curl(&[], &direct).code, Some(0));
    assert_eq!(pod.api.received().len(), 1);
    // The kubelet restarts it: another container in its own cgroup, with the same volumes.
    let sidecar = sandbox.sidecar();
    assert_eq!(pod.pins(), pins, "{}", sidecar.errors());
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    assert_eq!(sidecar.audit().len(), 2, "its records outlive it");
    assert_eq!(sidecar.stop(), Some(0));
    assert_eq!(agent.curl(&[], &pod.url("/echo")).code, Some(7));
}

#[test]
fn agent_started_before_sidecar_is_blocked_then_served() {
    let pod = chart_pod(Driver::Cgroupfs);
    let sandbox = pod.start_sandbox();
    sandbox.sidecar().kill();
    let agent = sandbox.agent(&pod.spec.containers[0]);
    assert_eq!(agent.curl(&[], &pod.url("/echo")).code, Some(7));
    assert!(pod.packets_to(pod.netns.local4().into()).is_empty(), "not even a connection was begun");
    let sidecar = sandbox.sidecar();
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    assert_eq!(sidecar.audit().pop().unwrap()["process"]["container"], agent.id.as_str());
}

#[test]
fn restarted_agent_is_identified_in_new_cgroup() {
    let pod = chart_pod(Driver::Systemd);
    let sandbox = pod.start_sandbox();
    let sidecar = sandbox.sidecar();
    assert_identified_anew(&sidecar, || sandbox.agent(&pod.spec.containers[0]), &pod.url("/echo"));
}

/// As when the sidecar's image is changed in a running pod.
#[test]
fn upgrade_keeps_hooks_in_force() {
    let pod = chart_pod(Driver::Systemd);
    let sandbox = pod.start_sandbox();
    let mut running = sandbox.start().into_iter();
    let (sidecar, agent) = (running.next().unwrap(), running.next().unwrap());
    let trying = EgressProbe::start(&pod, &agent);
    sidecar.kill();
    let [pins] = pod.pins().try_into().unwrap();
    testbed::mark_as_other_version(&pins);
    let _sidecar = sandbox.sidecar();
    let [now] = pod.pins().try_into().unwrap();
    assert!(now.file_name().unwrap().to_str().unwrap().starts_with("1-"), "{now:?}");
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    trying.assert_nothing_left(&pod);
}

/// Any sidecar that starts on the node removes the pins of an ended pod.
#[test]
fn next_sidecar_removes_pins_of_ended_pod() {
    let (gone, pod) = (chart_pod(Driver::Systemd), chart_pod(Driver::Systemd));
    drop(gone.start_sandbox().start());
    assert_eq!(gone.pins().len(), 1);
    std::fs::remove_dir(testbed::cgroup(&gone.cgroup)).unwrap();
    let sandbox = pod.start_sandbox();
    let _sidecar = sandbox.sidecar();
    assert_eq!((gone.pins().len(), pod.pins().len()), (0, 1));
}

/// The kubelet uses this probe to remove an agent's pod from a Service and to add it again.
#[test]
fn readiness_probe_reports_serving() {
    let pod = chart_pod(Driver::Systemd);
    let sandbox = pod.start_sandbox();
    let probe = pod.sidecar().readiness_probe.clone().unwrap();
    assert!(probe.timeout_seconds > 3 && probe.period_seconds * probe.failure_threshold <= 60, "{probe:?}");
    let sidecar = sandbox.sidecar();
    assert_eq!(sidecar.exec(&probe.exec.command).code, Some(0));
    sidecar.kill();
    // A container of the same image in which nothing serves.
    let mut idle = pod.sidecar().clone();
    idle.command = IDLE_COMMAND.map(str::to_owned).to_vec();
    idle.args.clear();
    assert_eq!(sandbox.agent(&idle).exec(&probe.exec.command).code, Some(6));
}
