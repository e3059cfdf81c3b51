//! An API server as they are: it forgets, breaks off, goes away and comes back. What a node has must come to agree
//! with what the cluster says all the same.

use super::{Cluster, Driver, LABEL, NODE, object, uid};
use crate::support::process::until;

#[test]
fn a_broken_connection_is_taken_up_where_it_broke_without_a_new_list() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let first = cluster.pod("prod", "agent", &[LABEL]);
    service.serves(1);
    cluster.api.bookmark();
    let lists = cluster.api.asked().lists;
    for turn in 0..3 {
        let watches = cluster.api.asked().watches;
        cluster.api.break_connections();
        // Meanwhile.
        let pod = cluster.pod("prod", "agent", &[LABEL]);
        service.serves(2);
        assert!(cluster.api.asked().watches > watches, "{turn}");
        cluster.api.delete(&pod.uid);
        drop(pod);
        service.serves(1);
    }
    assert_eq!(cluster.api.asked().lists, lists);
    assert_eq!(first.status("STRIPE_KEY"), "200");
}

#[test]
fn a_list_comes_in_pages_and_what_goes_while_it_is_read_is_gone() {
    let cluster = Cluster::new(Driver::Systemd);
    for _ in 0..1200 {
        cluster.api.put(object(&uid(), "prod", "agent", &[], NODE));
    }
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    let service = cluster.service();
    service.until("all are known", |status| status.known == 1201 && status.served == 1);
    assert_eq!(cluster.api.asked().lists, 3);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
    assert_eq!(cluster.hooked(), [pod.uid.as_str()], "the others are nobody's");
    // Nobody hears that it was deleted: it is missing in the next list.
    cluster.api.delete(&pod.uid);
    cluster.api.forget_history();
    cluster.api.break_connections();
    service.until("it is no longer known", |status| status.served == 0);
    assert!(pod.is_offline());
}

#[test]
fn when_the_server_no_longer_knows_what_happened_the_list_is_asked_for_and_agreed_with() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let (stays, goes) = (cluster.pod("prod", "agent", &[LABEL]), cluster.pod("prod", "agent", &[LABEL]));
    service.serves(2);
    let lists = cluster.api.asked().lists;
    cluster.api.is_down(true);
    // One is deleted by force, one is new, one has another account; nobody ever hears of these changes.
    cluster.api.delete(&goes.uid);
    cluster.api.put(object(&stays.uid, "prod", "other", &[LABEL], NODE));
    let unknown = uid();
    let comes = cluster.pod_with(unknown.clone());
    service.until("the new one is held", |status| status.held == 1);
    cluster.api.put(object(&unknown, "prod", "agent", &[LABEL], NODE));
    assert_eq!(stays.status("STRIPE_KEY"), "200", "without an API server what was known counts");
    assert!(comes.is_offline());
    cluster.api.forget_history();
    cluster.api.is_down(false);
    service.until("all is as the cluster says", |status| status.held == 0 && status.served == 2);
    assert!(cluster.api.asked().lists > lists);
    assert!(goes.is_offline());
    assert_eq!((stays.status("STRIPE_KEY"), comes.status("STRIPE_KEY")), ("403".into(), "200".into()));
}

#[test]
fn a_service_that_starts_without_an_api_server_serves_once_there_is_one() {
    let cluster = Cluster::new(Driver::Systemd);
    cluster.api.is_down(true);
    let service = cluster.start(cluster.command());
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    until("it has come up", || cluster.errors().contains("go through here"));
    // Nothing follows from a list that nobody has seen: pods of the node must start without us.
    assert!(cluster.hooked().is_empty());
    let status = || {
        let mut status = cluster.home.agentsecrets(["kubernetes", "status", "--status"]);
        crate::support::process::finish(status.arg(cluster.status()))
    };
    let unready = status();
    assert_eq!(unready.code, Some(6), "{unready:?}");
    assert!(unready.stderr.contains("has not told"), "{unready:?}");
    cluster.api.is_down(false);
    service.serves(1);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
    until("its status says so", || status().code == Some(0));
    assert!(status().ok().starts_with("pods: 1 known, 1 guarded, 1 served"));
    service.kill();
    let dead = status();
    assert_eq!(dead.code, Some(6), "{dead:?}");
}
