//! From its first packet on, a pod that may be ours is held; one that is not ours is left alone.

use serde_json::json;

use super::{Cluster, Driver, LABEL, NODE, Pod, SERVES, object, uid};
use crate::support::capture::Capture;
use crate::support::netns::Netns;
use crate::support::process::until;

/// A pod whose network leads to ours by a wire.
pub(super) struct Wired<'a> {
    pub(super) netns: Netns,
    pub(super) pod: Pod<'a>,
}

impl<'a> Wired<'a> {
    /// One that the cluster knows.
    pub(super) fn new(cluster: &'a Cluster, namespace: &str, labels: &[(&str, &str)]) -> Self {
        let uid = uid();
        cluster.api.put(object(&uid, namespace, "agent", labels, NODE));
        Self::start(cluster, "burstable", uid)
    }

    /// In the order of a kubelet and a runtime: the cgroup, the network, what holds it.
    fn start(cluster: &'a Cluster, quality: &str, uid: String) -> Self {
        let pod = cluster.cgroup(quality, uid);
        let mut wired = Self { netns: Netns::new(), pod };
        let inside = format!("--net=/run/netns/{}", wired.netns.name());
        wired.pod.sandbox_by(&["nsenter", &inside, "sh", "-c", "echo up && exec sleep 3000"]);
        wired
    }

    /// What of the words that a program in the pod tried to send has left it.
    fn leaves(&self, capture: &Capture) -> (bool, bool) {
        let tries = "import socket, sys\n\
            for kind, word in ((socket.SOCK_DGRAM, b'leak-by-udp'), (socket.SOCK_STREAM, b'leak-by-tcp')):\n\
            \x20   s = socket.socket(socket.AF_INET, kind); s.settimeout(2)\n\
            \x20   try: s.connect((sys.argv[1], int(sys.argv[2]))); s.send(word)\n\
            \x20   except OSError as e: print(e)";
        let server = std::net::TcpListener::bind((self.netns.here4(), 0)).unwrap();
        let (address, port) = (self.netns.here4().to_string(), server.local_addr().unwrap().port());
        self.pod.run(&["/usr/bin/python3", "-c", tries, &address, &port.to_string()]).ok();
        let udp = !capture.holding(b"leak-by-udp").is_empty();
        let tcp =
            capture.packets().iter().any(|packet| packet.destination_port == port && packet.protocol == 6);
        (udp, tcp)
    }
}

#[test]
fn no_packet_leaves_a_guarded_pod_from_the_first_on_and_what_is_nobodys_is_left_alone() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    for quality in ["burstable", "besteffort", ""] {
        let known = uid();
        cluster.api.put(object(&known, "prod", "agent", &[LABEL], NODE));
        // Nothing is waited for: the hooks are there before the runtime is.
        let wired = Wired::start(&cluster, quality, known);
        let capture = Capture::start(&wired.netns);
        assert_eq!(wired.leaves(&capture), (false, false), "{quality}");
        service.serves(1);
        assert_eq!(wired.pod.status("STRIPE_KEY"), "200", "{quality}");
        assert_eq!(service.now().late, [""; 0], "it was held before it ran");
        drop(wired);
        service.serves(0);
    }
    // Whoever is not ours gets out, so that the test sees what it says.
    let other = Wired::new(&cluster, "prod", &[]);
    let capture = Capture::start(&other.netns);
    until("it is known to be nobody's", || other.leaves(&capture) == (true, true));
    assert!(cluster.hooked().is_empty());
}

#[test]
fn a_pod_of_which_nothing_is_known_is_held_until_it_is() {
    let cluster = Cluster::new(Driver::Cgroupfs);
    let service = cluster.service();
    for (labels, is_ours) in [(&[LABEL][..], true), (&[], false)] {
        let unknown = uid();
        let wired = Wired::start(&cluster, "burstable", unknown.clone());
        let capture = Capture::start(&wired.netns);
        service.until("it is held", |status| status.held == 1);
        assert_eq!(wired.leaves(&capture), (false, false));
        assert!(wired.pod.is_offline());
        cluster.api.put(object(&unknown, "prod", "agent", labels, NODE));
        service.until("it is known", |status| status.held == 0);
        if is_ours {
            service.serves(1);
            assert_eq!(wired.pod.status("STRIPE_KEY"), "200");
        }
        assert_eq!(wired.leaves(&capture), (!is_ours, !is_ours));
    }
    // The node's own pods are known to the cluster by other uids, and must start while no API server does.
    let own = format!("{:032x}", u128::from(std::process::id()));
    let wired = Wired::start(&cluster, "burstable", own);
    let capture = Capture::start(&wired.netns);
    assert_eq!(wired.leaves(&capture), (true, true));
}

#[test]
fn a_pod_that_could_get_around_us_is_held_and_not_served_and_is_told_why() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let agent = "/spec/containers/0/securityContext";
    for (patch, why) in [
        (json!({ "op": "add", "path": "/spec/hostNetwork", "value": true }), "hostNetwork"),
        (json!({ "op": "add", "path": "/spec/hostPID", "value": true }), "hostPID"),
        (json!({ "op": "add", "path": "/spec/runtimeClassName", "value": "gvisor" }), "runtimeClassName"),
        (json!({ "op": "remove", "path": format!("{agent}/capabilities") }), "it must set capabilities.drop"),
        (json!({ "op": "remove", "path": "/spec/securityContext/runAsNonRoot" }), "it must set runAsNonRoot"),
        (
            json!({ "op": "add", "path": format!("{agent}/runAsUser"), "value": SERVES }),
            "the sidecar's own user",
        ),
        (
            json!({ "op": "add", "path": "/spec/volumes", "value": [{ "name": "kube-api-access-x",
                "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }] }),
            "no agent holds a token",
        ),
    ] {
        let uid = uid();
        let mut unfit = object(&uid, "prod", "agent", &[LABEL], NODE);
        let patch: json_patch::Patch = serde_json::from_value(json!([patch])).unwrap();
        json_patch::patch(&mut unfit, &patch).unwrap();
        cluster.api.put(unfit);
        let pod = cluster.pod_with(uid.clone());
        service.until(why, |status| status.failed.get(&uid).is_some_and(|said| said.contains(why)));
        assert!(pod.is_offline(), "{why}");
        assert_eq!(service.now().served, 0, "{why}");
    }
    // One that was fit is served no longer once it is given a container that is not.
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    service.serves(1);
    let mut debugged = object(&pod.uid, "prod", "agent", &[LABEL], NODE);
    debugged["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "debug" }]);
    cluster.api.put(debugged);
    service.serves(0);
    assert!(pod.is_offline());
}

/// Labels are the choice of whoever writes a pod, and there may be very many.
#[test]
fn a_pod_with_more_labels_than_can_be_told_of_is_offline_and_harms_nobody_else() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let (pod, other) = (cluster.pod("prod", "agent", &[LABEL]), cluster.pod("prod", "agent", &[LABEL]));
    service.serves(2);
    let mut many = object(&pod.uid, "prod", "agent", &[LABEL], NODE);
    for number in 0..4000 {
        many["metadata"]["labels"][format!("label-{number}")] = "a value of some length".into();
    }
    cluster.api.put(many.clone());
    service
        .until("it says why", |status| status.failed.get(&pod.uid).is_some_and(|why| why.contains("labels")));
    assert!(pod.is_offline());
    assert_eq!(other.status("STRIPE_KEY"), "200");
    cluster.api.put(object(&pod.uid, "prod", "agent", &[LABEL], NODE));
    service.serves(2);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
}

/// Whoever is on its way into a pod is in the node's network for a moment: no doors are made there.
#[test]
fn the_nodes_own_network_is_never_taken_for_a_pods() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let uid = uid();
    cluster.api.put(object(&uid, "prod", "agent", &[LABEL], NODE));
    let mut pod = cluster.cgroup("burstable", uid);
    pod.sandbox_by(&["sh", "-c", "echo up && exec sleep 3000"]);
    service.until("it is guarded", |status| status.guarded == 1);
    assert!(pod.is_offline());
    assert_eq!(service.now().served, 0);
    assert!(std::net::TcpStream::connect("127.0.0.1:61864").is_err());
    // Then it is where it belongs.
    pod.end_sandbox();
    pod.sandbox();
    service.serves(1);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
}
