//! A pod that may be guarded is blocked from its first packet on; other pods are not affected.

use serde_json::json;

use super::{Cluster, Driver, LABEL, NODE, Pod, SERVICE_UID, new_uid, pod_object};
use crate::support::capture::Capture;
use crate::support::netns::Netns;
use crate::support::process::wait_until;

/// A pod whose network is connected to ours by a veth pair.
pub(super) struct WiredPod<'a> {
    pub(super) netns: Netns,
    pub(super) pod: Pod<'a>,
}

impl<'a> WiredPod<'a> {
    /// A pod that the cluster knows.
    pub(super) fn new(cluster: &'a Cluster, namespace: &str, labels: &[(&str, &str)]) -> Self {
        let uid = new_uid();
        cluster.api.put_pod(pod_object(&uid, namespace, "agent", labels, NODE));
        Self::start(cluster, "burstable", uid)
    }

    /// In the order of a kubelet and a runtime: cgroup, network, sandbox container.
    fn start(cluster: &'a Cluster, quality: &str, uid: String) -> Self {
        let pod = cluster.cgroup(quality, uid);
        let mut wired = Self { netns: Netns::new(), pod };
        let inside = format!("--net=/run/netns/{}", wired.netns.name());
        wired.pod.start_sandbox_with(&["nsenter", &inside, "sh", "-c", "echo up && exec sleep 3000"]);
        wired
    }

    /// Whether the pod's TCP and UDP markers left it.
    fn sent_packets(&self, capture: &Capture) -> (bool, bool) {
        let tries = "import socket, sys\n\
            for kind, word in ((socket.SOCK_DGRAM, b'leak-by-udp'), (socket.SOCK_STREAM, b'leak-by-tcp')):\n\
            \x20   s = socket.socket(socket.AF_INET, kind); s.settimeout(2)\n\
            \x20   try: s.connect((sys.argv[1], int(sys.argv[2]))); s.send(word)\n\
            \x20   except OSError as e: print(e)";
        let server = std::net::TcpListener::bind((self.netns.local4(), 0)).unwrap();
        let (address, port) = (self.netns.local4().to_string(), server.local_addr().unwrap().port());
        self.pod.run(&["/usr/bin/python3", "-c", tries, &address, &port.to_string()]).ok();
        let udp = !capture.containing(b"leak-by-udp").is_empty();
        let tcp =
            capture.packets().iter().any(|packet| packet.destination_port == port && packet.protocol == 6);
        (udp, tcp)
    }
}

#[test]
fn guarded_pod_is_blocked_from_first_packet() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    for quality in ["burstable", "besteffort", ""] {
        let known = new_uid();
        cluster.api.put_pod(pod_object(&known, "prod", "agent", &[LABEL], NODE));
        // No waiting: the hooks are attached before the runtime starts.
        let wired = WiredPod::start(&cluster, quality, known);
        let capture = Capture::start(&wired.netns);
        assert_eq!(wired.sent_packets(&capture), (false, false), "{quality}");
        service.wait_until_served(1);
        assert_eq!(wired.pod.status("STRIPE_KEY"), "200", "{quality}");
        assert_eq!(service.read_status().late, [""; 0], "it was held before it ran");
        drop(wired);
        service.wait_until_served(0);
    }
    // Control: an unguarded pod has egress.
    let other = WiredPod::new(&cluster, "prod", &[]);
    let capture = Capture::start(&other.netns);
    wait_until("it is known to be nobody's", || other.sent_packets(&capture) == (true, true));
    assert!(cluster.hooked().is_empty());
}

#[test]
fn unknown_pod_is_blocked_until_known() {
    let cluster = Cluster::new(Driver::Cgroupfs);
    let service = cluster.start_service();
    for (labels, is_ours) in [(&[LABEL][..], true), (&[], false)] {
        let unknown = new_uid();
        let wired = WiredPod::start(&cluster, "burstable", unknown.clone());
        let capture = Capture::start(&wired.netns);
        service.wait_until("it is held", |status| status.held == 1);
        assert_eq!(wired.sent_packets(&capture), (false, false));
        assert!(wired.pod.is_offline());
        cluster.api.put_pod(pod_object(&unknown, "prod", "agent", labels, NODE));
        service.wait_until("it is known", |status| status.held == 0);
        if is_ours {
            service.wait_until_served(1);
            assert_eq!(wired.pod.status("STRIPE_KEY"), "200");
        }
        assert_eq!(wired.sent_packets(&capture), (!is_ours, !is_ours));
    }
    // Static pods have other uids in the cluster, and must start without an API server.
    let own = format!("{:032x}", u128::from(std::process::id()));
    let wired = WiredPod::start(&cluster, "burstable", own);
    let capture = Capture::start(&wired.netns);
    assert_eq!(wired.sent_packets(&capture), (true, true));
}

#[test]
fn unfit_pod_is_blocked_with_reason() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let agent = "/spec/containers/0/securityContext";
    for (patch, why) in [
        (json!({ "op": "add", "path": "/spec/hostNetwork", "value": true }), "hostNetwork"),
        (json!({ "op": "add", "path": "/spec/hostPID", "value": true }), "hostPID"),
        (json!({ "op": "add", "path": "/spec/runtimeClassName", "value": "gvisor" }), "runtimeClassName"),
        (json!({ "op": "remove", "path": format!("{agent}/capabilities") }), "it must set capabilities.drop"),
        (json!({ "op": "remove", "path": "/spec/securityContext/runAsNonRoot" }), "it must set runAsNonRoot"),
        (
            json!({ "op": "add", "path": format!("{agent}/runAsUser"), "value": SERVICE_UID }),
            "the sidecar's own user",
        ),
        (
            json!({ "op": "add", "path": "/spec/volumes", "value": [{ "name": "kube-api-access-x",
                "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }] }),
            "no agent holds a token",
        ),
    ] {
        let uid = new_uid();
        let mut unfit = pod_object(&uid, "prod", "agent", &[LABEL], NODE);
        let patch: json_patch::Patch = serde_json::from_value(json!([patch])).unwrap();
        json_patch::patch(&mut unfit, &patch).unwrap();
        cluster.api.put_pod(unfit);
        let pod = cluster.pod_with(uid.clone());
        service.wait_until(why, |status| status.failed.get(&uid).is_some_and(|output| output.contains(why)));
        assert!(pod.is_offline(), "{why}");
        assert_eq!(service.read_status().served, 0, "{why}");
    }
    // A fit pod is no longer served once it gets an unfit container.
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    service.wait_until_served(1);
    let mut debugged = pod_object(&pod.uid, "prod", "agent", &[LABEL], NODE);
    debugged["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "debug" }]);
    cluster.api.put_pod(debugged);
    service.wait_until_served(0);
    assert!(pod.is_offline());
}

/// The pod's author chooses its labels, and there may be very many.
#[test]
fn pod_with_too_many_labels_is_offline() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let (pod, other) = (cluster.pod("prod", "agent", &[LABEL]), cluster.pod("prod", "agent", &[LABEL]));
    service.wait_until_served(2);
    let mut many = pod_object(&pod.uid, "prod", "agent", &[LABEL], NODE);
    for number in 0..4000 {
        many["metadata"]["labels"][format!("label-{number}")] = "a value of some length".into();
    }
    cluster.api.put_pod(many.clone());
    service.wait_until("it says why", |status| {
        status.failed.get(&pod.uid).is_some_and(|why| why.contains("labels"))
    });
    assert!(pod.is_offline());
    assert_eq!(other.status("STRIPE_KEY"), "200");
    cluster.api.put_pod(pod_object(&pod.uid, "prod", "agent", &[LABEL], NODE));
    service.wait_until_served(2);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
}

/// A process on its way into a pod is briefly in the node's network: no listeners are created there.
#[test]
fn host_network_is_never_taken_for_pod() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let uid = new_uid();
    cluster.api.put_pod(pod_object(&uid, "prod", "agent", &[LABEL], NODE));
    let mut pod = cluster.cgroup("burstable", uid);
    pod.start_sandbox_with(&["sh", "-c", "echo up && exec sleep 3000"]);
    service.wait_until("it is guarded", |status| status.guarded == 1);
    assert!(pod.is_offline());
    assert_eq!(service.read_status().served, 0);
    assert!(std::net::TcpStream::connect("127.0.0.1:61864").is_err());
    // Then it is in the pod's network.
    pod.end_sandbox();
    pod.start_sandbox();
    service.wait_until_served(1);
    assert_eq!(pod.status("STRIPE_KEY"), "200");
}
