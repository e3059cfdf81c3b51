//! Killed, upgraded, told nothing: a guarded pod is served or offline, never free.

use super::{Cluster, Driver, LABEL, NODE, object};
use crate::support::process::until;

#[test]
fn when_the_service_is_killed_pods_are_offline_until_it_is_there_again() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let (one, two) = (cluster.pod("prod", "agent", &[LABEL]), cluster.pod("prod", "agent", &[LABEL]));
    service.serves(2);
    assert_eq!(one.status("STRIPE_KEY"), "200");
    let programs = || std::fs::read_dir(cluster.pins.join("programs")).unwrap().count();
    let before = (programs(), super::crowd::links(&cluster));
    service.kill();
    assert!(one.is_offline() && two.is_offline());
    // One goes and one comes while nobody looks.
    let gone = two.uid.clone();
    drop(two);
    cluster.api.delete(&gone);
    let three = cluster.pod("prod", "agent", &[LABEL]);
    let service = cluster.service();
    service.serves(2);
    assert_eq!((programs(), super::crowd::links(&cluster)), before, "what is in force is taken up as it is");
    assert_eq!((one.status("STRIPE_KEY"), three.status("STRIPE_KEY")), ("200".into(), "200".into()));
    let mut hooked = cluster.hooked();
    hooked.sort();
    let mut expected = [one.uid.clone(), three.uid.clone()];
    expected.sort();
    assert_eq!(hooked, expected);
    assert_eq!(service.now().late, [three.uid.as_str()], "it ran while nobody held it");
}

/// Programs of another version stay in force until the new ones are.
#[test]
fn an_upgrade_hooks_every_pod_anew_before_the_old_hooks_go() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    service.serves(1);
    service.kill();
    // As if its programs were others.
    let programs = cluster.pins.join("programs");
    let kind = std::fs::read_dir(&programs).unwrap().next().unwrap().unwrap().file_name();
    std::fs::rename(programs.join(&kind), programs.join("0000000000000000")).unwrap();
    let of_pod = cluster.pins.join("hooked").join(&pod.uid);
    std::fs::rename(of_pod.join(&kind), of_pod.join("0000000000000000")).unwrap();
    assert!(pod.is_offline());
    let service = cluster.service();
    service.serves(1);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
    assert!(!programs.join("0000000000000000").exists() && !of_pod.join("0000000000000000").exists());
    assert_eq!(super::crowd::links(&cluster), 14);
}

#[test]
fn containers_and_sandboxes_that_are_started_again_are_served_and_known_anew() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let mut pod = cluster.pod("prod", "agent", &[LABEL]);
    service.serves(1);
    let mut containers = Vec::new();
    for _ in 0..2 {
        assert_eq!(pod.status("STRIPE_KEY"), "200");
        assert_eq!(pod.status("STRIPE_KEY"), "200");
        containers.extend(cluster.audit().iter().map(|record| record["process"]["container"].to_string()));
        // Its network goes, and another comes, in the same cgroup.
        pod.end_sandbox();
        service.serves(0);
        pod.sandbox();
        service.serves(1);
    }
    containers.sort();
    containers.dedup();
    assert_eq!(containers.len(), 4);
    assert_eq!(service.now().late, [""; 0]);
}

#[test]
fn a_pod_that_the_cluster_no_longer_knows_is_offline_and_stays_held() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    service.serves(1);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
    // Deleted by force: its containers live on.
    cluster.api.delete(&pod.uid);
    service.serves(0);
    assert!(pod.is_offline());
    assert_eq!(cluster.hooked(), [pod.uid.as_str()]);
    drop(pod);
    until("nothing of it is left", || cluster.hooked().is_empty() && service.now().known == 0);
}

#[test]
fn when_the_interceptor_dies_the_service_ends_and_pods_are_held() {
    let cluster = Cluster::new(Driver::Systemd);
    let mut service = cluster.service();
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    service.serves(1);
    let [_, interceptor, ..] = service.processes()[..] else { panic!("no interceptor") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(interceptor as i32), nix::sys::signal::SIGKILL)
        .unwrap();
    assert_eq!(service.child.wait().unwrap().code(), Some(1));
    assert!(cluster.errors().contains("the interceptor ended"), "{}", cluster.errors());
    assert!(pod.is_offline());
}

/// Pods of other nodes are never asked for.
#[test]
fn only_this_nodes_pods_are_known() {
    let cluster = Cluster::new(Driver::Systemd);
    for number in 0..3 {
        cluster.api.put(object(&super::uid(), "prod", "agent", &[LABEL], &format!("worker-{}", number + 2)));
    }
    cluster.api.put(object(&super::uid(), "prod", "agent", &[LABEL], NODE));
    let service = cluster.service();
    cluster.api.put(object(&super::uid(), "prod", "agent", &[LABEL], "worker-9"));
    cluster.api.put(object(&super::uid(), "prod", "agent", &[LABEL], NODE));
    service.until("its two pods are known", |status| status.known == 2);
}
