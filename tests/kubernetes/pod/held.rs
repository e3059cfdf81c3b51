//! No container of the pod gets out but through the sidecar, whenever it is started.

use serde_json::json;

use super::kubelet::{Pod, Sandbox};
use super::{Driver, injected, of_chart, of_values};
use crate::containers::held::TRIES;
use crate::containers::site::{Container, IDLE};
use crate::support::upstream::{Options, Upstream};

/// Servers on the other side of the wire, and where nobody answers.
pub(super) struct Outside<'a> {
    pod: &'a Pod,
    plain: Upstream,
    plain6: Upstream,
}

impl<'a> Outside<'a> {
    pub(super) fn of(pod: &'a Pod) -> Self {
        let plain = Upstream::start(Options::plain().at((pod.netns.here4(), 0)));
        let plain6 = Upstream::start(Options::plain().at((pod.netns.here6(), 0)));
        Self { pod, plain, plain6 }
    }

    /// The program that tries every way out, and where to.
    pub(super) fn tries(&self) -> Vec<String> {
        let netns = &self.pod.netns;
        let (four, six) = (netns.here4().to_string(), netns.here6().to_string());
        let ports = [&self.plain, &self.plain6].map(|server| server.port().to_string());
        let [port, port6] = ports;
        [vec!["/usr/bin/python3".to_owned(), "-c".to_owned(), TRIES.to_owned()], vec![four, six, port, port6]]
            .concat()
    }

    /// How many knocked where nobody answers, so that no word would be sent.
    fn knocks(&self) -> usize {
        self.pod.left_for([203, 0, 113, 5].into()).len()
    }

    #[track_caller]
    pub(super) fn saw_nothing(&self, said: &str) {
        assert_eq!(self.pod.left("leak-").len(), 0, "{said}");
        assert_eq!((self.plain.connections(), self.plain6.connections(), self.knocks()), (0, 0, 0), "{said}");
        for refused in ["udp4 EPERM", "udp6 EPERM", "raw EPERM", "packet EPERM"] {
            assert!(said.contains(refused), "{said}");
        }
    }
}

#[test]
fn an_agents_container_cannot_get_out_otherwise_and_without_the_sidecar_it_can() {
    let captures = [(Driver::Systemd, "ebpf"), (Driver::Cgroupfs, "ebpf"), (Driver::Systemd, "nftables")];
    for (driver, capture) in captures {
        let pod = of_values(driver, &json!({ "capture": capture }));
        // In a network of the same kind, where there is no sidecar: so the test sees what it says.
        let free = of_chart(driver);
        let outside = Outside::of(&free);
        let said = free.sandbox().agent(&free.spec.containers[0]).exec(outside.tries()).ok();
        for word in ["leak-by-tcp4", "leak-by-tcp6", "leak-by-udp4", "leak-by-udp6", "leak-by-dns"] {
            assert!(!free.left(word).is_empty(), "{word}: {said}");
        }
        assert!(outside.knocks() > 0, "{said}");

        let outside = Outside::of(&pod);
        let sandbox = pod.sandbox();
        let [_sidecar, agent] = sandbox.start().try_into().ok().unwrap();
        outside.saw_nothing(&agent.exec(outside.tries()).ok());
    }
}

/// What a pod of another author's has: a container that prepares, and one that is added while it runs.
#[test]
fn a_container_that_prepares_and_one_that_is_added_later_are_held_like_the_agent() {
    for capture in ["ebpf", "nftables"] {
        let pod = injected(
            &json!({ "capture": capture }),
            &json!({
                "initContainers": [{ "name": "prepare", "image": "agent" }],
                "containers": [{ "name": "agent", "image": "agent", "command": IDLE }],
                "securityContext": { "runAsUser": 1000 },
            }),
        );
        let outside = Outside::of(&pod);
        let sandbox = pod.sandbox();
        let sidecar = sandbox.sidecar();
        let mut prepare = pod.spec.init_containers[1].clone();
        assert_eq!(prepare.name, "prepare");
        // It runs before the agent is there, and its call gets the credential.
        let said = run(&sandbox, &mut prepare, &outside.tries());
        outside.saw_nothing(&said);
        let url = pod.url("/echo");
        let call = ["curl", "-sS", "-m", "20", "-H", "Authorization: Bearer AS_SECRET_STRIPE_KEY", &url];
        let said = run(&sandbox, &mut prepare, &call.map(str::to_owned));
        assert!(said.contains("[REDACTED_BY_AGENTSECRETS]"), "{said}");
        // As `kubectl debug` adds one, with another user and none of the variables.
        let _agent = sandbox.agent(&pod.spec.containers[0]);
        let mut debug = pod.spec.containers[0].clone();
        (debug.name, debug.env, debug.volume_mounts) = ("debug".to_owned(), Vec::new(), Vec::new());
        debug.security_context.run_as_user = Some(3000);
        outside.saw_nothing(&run(&sandbox, &mut debug, &outside.tries()));
        assert_eq!(sidecar.audit().iter().filter(|record| record["status"] == "OK").count(), 1);
    }
}

/// Runs a container to its end: what it printed.
pub(super) fn run(sandbox: &Sandbox<'_>, wanted: &mut super::spec::Container, words: &[String]) -> String {
    wanted.command = words.to_vec();
    let mut container: Container<'_> = sandbox.container(wanted);
    let said = container.rest();
    assert_eq!(container.ended(), Some(0), "{said} {}", container.errors());
    said
}
