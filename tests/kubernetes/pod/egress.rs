//! A container of the pod has no egress except through the sidecar, whenever it starts.

use serde_json::json;

use super::kubelet::{Pod, Sandbox};
use super::{Driver, chart_pod, chart_pod_with, injected_pod};
use crate::containers::egress::EGRESS_ATTEMPTS;
use crate::containers::testbed::{Container, IDLE_COMMAND};
use crate::support::upstream::{Options, Upstream};

/// Servers behind the veth pair, and an address without a listener.
pub(super) struct OutsideServers<'a> {
    pod: &'a Pod,
    plain: Upstream,
    plain6: Upstream,
}

impl<'a> OutsideServers<'a> {
    pub(super) fn of(pod: &'a Pod) -> Self {
        let plain = Upstream::start(Options::plain().at((pod.netns.local4(), 0)));
        let plain6 = Upstream::start(Options::plain().at((pod.netns.local6(), 0)));
        Self { pod, plain, plain6 }
    }

    /// The program with all egress attempts, and its targets.
    pub(super) fn egress_attempts(&self) -> Vec<String> {
        let netns = &self.pod.netns;
        let (four, six) = (netns.local4().to_string(), netns.local6().to_string());
        let ports = [&self.plain, &self.plain6].map(|server| server.port().to_string());
        let [port, port6] = ports;
        [
            vec!["/usr/bin/python3".to_owned(), "-c".to_owned(), EGRESS_ATTEMPTS.to_owned()],
            vec![four, six, port, port6],
        ]
        .concat()
    }

    /// Connection attempts to the address without a listener: no data is sent, but the packets are captured.
    fn connection_attempts(&self) -> usize {
        self.pod.packets_to([203, 0, 113, 5].into()).len()
    }

    #[track_caller]
    pub(super) fn assert_saw_nothing(&self, output: &str) {
        assert_eq!(self.pod.packets_with("leak-").len(), 0, "{output}");
        assert_eq!(
            (self.plain.connections(), self.plain6.connections(), self.connection_attempts()),
            (0, 0, 0),
            "{output}"
        );
        for refused in ["udp4 EPERM", "udp6 EPERM", "raw EPERM", "packet EPERM"] {
            assert!(output.contains(refused), "{output}");
        }
    }
}

#[test]
fn agent_container_egress_is_blocked_by_sidecar() {
    let captures = [(Driver::Systemd, "ebpf"), (Driver::Cgroupfs, "ebpf"), (Driver::Systemd, "nftables")];
    for (driver, capture) in captures {
        let pod = chart_pod_with(driver, &json!({ "capture": capture }));
        // Control: a network of the same kind without a sidecar.
        let free = chart_pod(driver);
        let outside = OutsideServers::of(&free);
        let output =
            free.start_sandbox().agent(&free.spec.containers[0]).exec(outside.egress_attempts()).ok();
        for word in ["leak-by-tcp4", "leak-by-tcp6", "leak-by-udp4", "leak-by-udp6", "leak-by-dns"] {
            assert!(!free.packets_with(word).is_empty(), "{word}: {output}");
        }
        assert!(outside.connection_attempts() > 0, "{output}");

        let outside = OutsideServers::of(&pod);
        let sandbox = pod.start_sandbox();
        let [_sidecar, agent] = sandbox.start().try_into().ok().unwrap();
        outside.assert_saw_nothing(&agent.exec(outside.egress_attempts()).ok());
    }
}

/// Another author's pod: an init container, and an ephemeral container added later.
#[test]
fn init_and_ephemeral_containers_are_blocked() {
    for capture in ["ebpf", "nftables"] {
        let pod = injected_pod(
            &json!({ "capture": capture }),
            &json!({
                "initContainers": [{ "name": "prepare", "image": "agent" }],
                "containers": [{ "name": "agent", "image": "agent", "command": IDLE_COMMAND }],
                "securityContext": { "runAsUser": 1000 },
            }),
        );
        let outside = OutsideServers::of(&pod);
        let sandbox = pod.start_sandbox();
        let sidecar = sandbox.sidecar();
        let mut prepare = pod.spec.init_containers[1].clone();
        assert_eq!(prepare.name, "prepare");
        // It runs before the agent and its request gets the credential.
        let output = run_container(&sandbox, &mut prepare, &outside.egress_attempts());
        outside.assert_saw_nothing(&output);
        let url = pod.url("/echo");
        let call = ["curl", "-sS", "-m", "20", "-H", "Authorization: Bearer AS_SECRET_STRIPE_KEY", &url];
        let output = run_container(&sandbox, &mut prepare, &call.map(str::to_owned));
        assert!(output.contains("[REDACTED_BY_AGENTSECRETS]"), "{output}");
        // As `kubectl debug` adds it: another user and no CA variables.
        let _agent = sandbox.agent(&pod.spec.containers[0]);
        let mut debug = pod.spec.containers[0].clone();
        (debug.name, debug.env, debug.volume_mounts) = ("debug".to_owned(), Vec::new(), Vec::new());
        debug.security_context.run_as_user = Some(3000);
        outside.assert_saw_nothing(&run_container(&sandbox, &mut debug, &outside.egress_attempts()));
        assert_eq!(sidecar.audit().iter().filter(|record| record["status"] == "OK").count(), 1);
    }
}

/// Runs a container to its end; returns its output.
pub(super) fn run_container(
    sandbox: &Sandbox<'_>,
    container_spec: &mut super::spec::Container,
    words: &[String],
) -> String {
    container_spec.command = words.to_vec();
    let mut container: Container<'_> = sandbox.container(container_spec);
    let output = container.read_to_end();
    assert_eq!(container.wait_for_exit(), Some(0), "{output} {}", container.errors());
    output
}
