//! A realistic API server: it forgets, disconnects, goes away and comes back. The node's state must agree
//! with the cluster in the end.

use super::{Cluster, Driver, LABEL, NODE, new_uid, pod_object};
use crate::support::process::wait_until;

#[test]
fn broken_watch_resumes_without_list() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let first = cluster.pod("prod", "agent", &[LABEL]);
    service.wait_until_served(1);
    cluster.api.send_bookmark();
    let lists = cluster.api.asked().lists;
    for turn in 0..3 {
        let watches = cluster.api.asked().watches;
        cluster.api.break_connections();
        // While the watch is broken.
        let pod = cluster.pod("prod", "agent", &[LABEL]);
        service.wait_until_served(2);
        assert!(cluster.api.asked().watches > watches, "{turn}");
        cluster.api.delete_pod(&pod.uid);
        drop(pod);
        service.wait_until_served(1);
    }
    assert_eq!(cluster.api.asked().lists, lists);
    assert_eq!(first.status("STRIPE_KEY"), "200");
}

#[test]
fn paged_list_drops_deleted_pods() {
    let cluster = Cluster::new(Driver::Systemd);
    for _ in 0..1200 {
        cluster.api.put_pod(pod_object(&new_uid(), "prod", "agent", &[], NODE));
    }
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    let service = cluster.start_service();
    service.wait_until("all are known", |status| status.known == 1201 && status.served == 1);
    assert_eq!(cluster.api.asked().lists, 3);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
    assert_eq!(cluster.hooked(), [pod.uid.as_str()], "the others are nobody's");
    // No watch reports the deletion: the pod is missing in the next list.
    cluster.api.delete_pod(&pod.uid);
    cluster.api.forget_history();
    cluster.api.break_connections();
    service.wait_until("it is no longer known", |status| status.served == 0);
    assert!(pod.is_offline());
}

#[test]
fn expired_watch_relists() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let (stays, goes) = (cluster.pod("prod", "agent", &[LABEL]), cluster.pod("prod", "agent", &[LABEL]));
    service.wait_until_served(2);
    let lists = cluster.api.asked().lists;
    cluster.api.set_down(true);
    // One is force-deleted, one is new, one has another account; no watch reports these changes.
    cluster.api.delete_pod(&goes.uid);
    cluster.api.put_pod(pod_object(&stays.uid, "prod", "other", &[LABEL], NODE));
    let unknown = new_uid();
    let comes = cluster.pod_with(unknown.clone());
    service.wait_until("the new one is held", |status| status.held == 1);
    cluster.api.put_pod(pod_object(&unknown, "prod", "agent", &[LABEL], NODE));
    assert_eq!(stays.status("STRIPE_KEY"), "200", "without an API server what was known counts");
    assert!(comes.is_offline());
    cluster.api.forget_history();
    cluster.api.set_down(false);
    service.wait_until("all is as the cluster says", |status| status.held == 0 && status.served == 2);
    assert!(cluster.api.asked().lists > lists);
    assert!(goes.is_offline());
    assert_eq!((stays.status("STRIPE_KEY"), comes.status("STRIPE_KEY")), ("403".into(), "200".into()));
}

#[test]
fn service_started_without_api_server_recovers() {
    let cluster = Cluster::new(Driver::Systemd);
    cluster.api.set_down(true);
    let service = cluster.start(cluster.command());
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    wait_until("it has come up", || cluster.errors().contains("go through here"));
    // Without a list nothing is known: static pods must start without us.
    assert!(cluster.hooked().is_empty());
    let status = || {
        let mut status = cluster.home.agentsecrets(["kubernetes", "status", "--status"]);
        crate::support::process::run(status.arg(cluster.status()))
    };
    let unready = status();
    assert_eq!(unready.code, Some(6), "{unready:?}");
    assert!(unready.stderr.contains("has not listed every pod yet"), "{unready:?}");
    cluster.api.set_down(false);
    service.wait_until_served(1);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
    wait_until("its status says so", || status().code == Some(0));
    assert!(status().ok().starts_with("pods: 1 known, 1 guarded, 1 served"));
    service.kill();
    let dead = status();
    assert_eq!(dead.code, Some(6), "{dead:?}");
}
