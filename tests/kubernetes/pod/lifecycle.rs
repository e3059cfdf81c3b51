//! Killed, restarted, upgraded, in whichever order: an agent is served or offline, never free.

use super::{Driver, of_chart};
use crate::containers::lifecycle::known_anew;
use crate::containers::site::{self, IDLE};
use crate::containers::trying::Trying;

#[test]
fn when_the_sidecar_is_killed_the_agent_is_offline_until_it_is_started_again() {
    let pod = of_chart(Driver::Systemd);
    let sandbox = pod.sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    let (pins, before) = (pod.pins(), sidecar.audit().len());
    assert_eq!((pins.len(), before), (1, 1));
    sidecar.kill();
    assert_eq!(agent.curl(&[], &pod.url("/echo")).code, Some(7));
    let direct = format!("http://{}:{}/", pod.netns.here4(), pod.api.port());
    assert_ne!(agent.curl(&[], &direct).code, Some(0));
    assert_eq!(pod.api.received().len(), 1);
    // The kubelet starts it again: another container, in a cgroup of its own, with the pod's volumes as they are.
    let sidecar = sandbox.sidecar();
    assert_eq!(pod.pins(), pins, "{}", sidecar.errors());
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    assert_eq!(sidecar.audit().len(), 2, "its records outlive it");
    assert_eq!(sidecar.stop(), Some(0));
    assert_eq!(agent.curl(&[], &pod.url("/echo")).code, Some(7));
}

#[test]
fn an_agent_that_starts_before_the_sidecar_is_there_again_is_held_and_then_served() {
    let pod = of_chart(Driver::Cgroupfs);
    let sandbox = pod.sandbox();
    sandbox.sidecar().kill();
    let agent = sandbox.agent(&pod.spec.containers[0]);
    assert_eq!(agent.curl(&[], &pod.url("/echo")).code, Some(7));
    assert!(pod.left_for(pod.netns.here4().into()).is_empty(), "not even a connection was begun");
    let sidecar = sandbox.sidecar();
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    assert_eq!(sidecar.audit().pop().unwrap()["process"]["container"], agent.id.as_str());
}

#[test]
fn an_agent_that_is_started_again_is_in_a_new_cgroup_and_known_anew() {
    let pod = of_chart(Driver::Systemd);
    let sandbox = pod.sandbox();
    let sidecar = sandbox.sidecar();
    known_anew(&sidecar, || sandbox.agent(&pod.spec.containers[0]), &pod.url("/echo"));
}

/// As when the image of the sidecar is changed in a pod that runs.
#[test]
fn an_upgrade_leaves_no_moment_without_hooks() {
    let pod = of_chart(Driver::Systemd);
    let sandbox = pod.sandbox();
    let mut running = sandbox.start().into_iter();
    let (sidecar, agent) = (running.next().unwrap(), running.next().unwrap());
    let trying = Trying::start(&pod, &agent);
    sidecar.kill();
    let [pins] = pod.pins().try_into().unwrap();
    site::of_another_version(&pins);
    let _sidecar = sandbox.sidecar();
    let [now] = pod.pins().try_into().unwrap();
    assert!(now.file_name().unwrap().to_str().unwrap().starts_with("1-"), "{now:?}");
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    trying.got_nothing_out(&pod);
}

/// A pod that ended leaves nothing in the kernel once any sidecar starts on that node.
#[test]
fn what_a_pod_left_is_removed_by_the_next_sidecar_of_the_node() {
    let (gone, pod) = (of_chart(Driver::Systemd), of_chart(Driver::Systemd));
    drop(gone.sandbox().start());
    assert_eq!(gone.pins().len(), 1);
    std::fs::remove_dir(site::cgroup(&gone.cgroup)).unwrap();
    let sandbox = pod.sandbox();
    let _sidecar = sandbox.sidecar();
    assert_eq!((gone.pins().len(), pod.pins().len()), (0, 1));
}

/// The probe by which a kubelet takes an agent's pod out of a Service, and puts it back.
#[test]
fn the_readiness_probe_tells_whether_anybody_serves() {
    let pod = of_chart(Driver::Systemd);
    let sandbox = pod.sandbox();
    let probe = pod.sidecar().readiness_probe.clone().unwrap();
    assert!(probe.timeout_seconds > 3 && probe.period_seconds * probe.failure_threshold <= 60, "{probe:?}");
    let sidecar = sandbox.sidecar();
    assert_eq!(sidecar.exec(&probe.exec.command).code, Some(0));
    sidecar.kill();
    // A container of the same image in which nothing serves.
    let mut idle = pod.sidecar().clone();
    idle.command = IDLE.map(str::to_owned).to_vec();
    idle.args.clear();
    assert_eq!(sandbox.agent(&idle).exec(&probe.exec.command).code, Some(6));
}
