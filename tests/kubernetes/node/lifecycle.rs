//! Killed, upgraded or without information: a guarded pod is served or offline, never unguarded.

use super::{Cluster, Driver, LABEL, NODE, pod_object};
use crate::support::process::wait_until;

#[test]
fn pods_are_offline_while_service_is_dead() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let (one, two) = (cluster.pod("prod", "agent", &[LABEL]), cluster.pod("prod", "agent", &[LABEL]));
    service.wait_until_served(2);
    assert_eq!(one.status("STRIPE_KEY"), "200");
    let programs = || std::fs::read_dir(cluster.pins.join("programs")).unwrap().count();
    let before = (programs(), super::scale::links(&cluster));
    service.kill();
    assert!(one.is_offline() && two.is_offline());
    // One pod ends and one starts while the service is down.
    let gone = two.uid.clone();
    drop(two);
    cluster.api.delete_pod(&gone);
    let three = cluster.pod("prod", "agent", &[LABEL]);
    let service = cluster.start_service();
    service.wait_until_served(2);
    assert_eq!((programs(), super::scale::links(&cluster)), before, "what is in force is taken up as it is");
    assert_eq!((one.status("STRIPE_KEY"), three.status("STRIPE_KEY")), ("200".into(), "200".into()));
    let mut hooked = cluster.hooked();
    hooked.sort();
    let mut expected = [one.uid.clone(), three.uid.clone()];
    expected.sort();
    assert_eq!(hooked, expected);
    assert_eq!(service.read_status().late, [three.uid.as_str()], "it ran while nobody held it");
}

/// Programs of another version stay in force until the new ones are attached.
#[test]
fn upgrade_rehooks_pods_without_gap() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    service.wait_until_served(1);
    service.kill();
    // As if the programs had another version.
    let programs = cluster.pins.join("programs");
    let kind = std::fs::read_dir(&programs).unwrap().next().unwrap().unwrap().file_name();
    std::fs::rename(programs.join(&kind), programs.join("0000000000000000")).unwrap();
    let of_pod = cluster.pins.join("hooked").join(&pod.uid);
    std::fs::rename(of_pod.join(&kind), of_pod.join("0000000000000000")).unwrap();
    assert!(pod.is_offline());
    let service = cluster.start_service();
    service.wait_until_served(1);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
    assert!(!programs.join("0000000000000000").exists() && !of_pod.join("0000000000000000").exists());
    assert_eq!(super::scale::links(&cluster), 14);
}

#[test]
fn restarted_containers_and_sandboxes_are_served() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let mut pod = cluster.pod("prod", "agent", &[LABEL]);
    service.wait_until_served(1);
    let mut containers = Vec::new();
    for _ in 0..2 {
        assert_eq!(pod.status("STRIPE_KEY"), "200");
        assert_eq!(pod.status("STRIPE_KEY"), "200");
        containers.extend(cluster.audit().iter().map(|record| record["process"]["container"].to_string()));
        // The pod's network is replaced within the same cgroup.
        pod.end_sandbox();
        service.wait_until_served(0);
        pod.start_sandbox();
        service.wait_until_served(1);
    }
    containers.sort();
    containers.dedup();
    assert_eq!(containers.len(), 4);
    assert_eq!(service.read_status().late, [""; 0]);
}

#[test]
fn deleted_pod_is_offline_and_stays_blocked() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    service.wait_until_served(1);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
    // Force-deleted: its containers live on.
    cluster.api.delete_pod(&pod.uid);
    service.wait_until_served(0);
    assert!(pod.is_offline());
    assert_eq!(cluster.hooked(), [pod.uid.as_str()]);
    drop(pod);
    wait_until("nothing of it is left", || cluster.hooked().is_empty() && service.read_status().known == 0);
}

#[test]
fn dead_interceptor_ends_service_and_blocks_pods() {
    let cluster = Cluster::new(Driver::Systemd);
    let mut service = cluster.start_service();
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    service.wait_until_served(1);
    let [_, interceptor, ..] = service.processes()[..] else { panic!("no interceptor") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(interceptor as i32), nix::sys::signal::SIGKILL)
        .unwrap();
    assert_eq!(service.child.wait().unwrap().code(), Some(1));
    assert!(cluster.errors().contains("the interceptor ended"), "{}", cluster.errors());
    assert!(pod.is_offline());
}

/// The service requests only its own node's pods.
#[test]
fn pods_of_other_nodes_are_not_requested() {
    let cluster = Cluster::new(Driver::Systemd);
    for number in 0..3 {
        cluster.api.put_pod(pod_object(
            &super::new_uid(),
            "prod",
            "agent",
            &[LABEL],
            &format!("worker-{}", number + 2),
        ));
    }
    cluster.api.put_pod(pod_object(&super::new_uid(), "prod", "agent", &[LABEL], NODE));
    let service = cluster.start_service();
    cluster.api.put_pod(pod_object(&super::new_uid(), "prod", "agent", &[LABEL], "worker-9"));
    cluster.api.put_pod(pod_object(&super::new_uid(), "prod", "agent", &[LABEL], NODE));
    service.wait_until("its two pods are known", |status| status.known == 2);
}
