//! The chart: its manifests are valid in the newest releases, and invalid values are rejected with advice.

use serde_json::Value;

use super::{helm, render, workspace_file};

#[test]
fn chart_values_lint_and_validate() {
    let output = helm(&["check"]).ok();
    let files = std::fs::read_dir(workspace_file("helm/agentsecrets/ci")).unwrap().count();
    assert_eq!(output.lines().count(), files, "{output}");
    assert!(files >= 21);
}

#[test]
fn invalid_chart_values_are_refused() {
    for (values, why) in [
        ("mode: daemon", "mode"),
        ("moed: sidecar", "moed"),
        ("secrets: { values: { K: v } }", "values"),
        ("secrets: { existingSecret: Not_A_Name }", "existingSecret"),
        ("secrets: { names: [\"A B\"] }", "names"),
        ("agent: { image: a, runAsUser: 0 }", "runAsUser"),
        ("agent: { image: a, runAsUser: 64646 }", "runAsUser"),
        ("agent: { image: a, runAsUser: 7 }\nsidecar: { user: '7:7' }", "give the agent another"),
        ("agent: { image: a, hostNetwork: true }", "hostNetwork"),
        ("agent: { image: a, securityContext: { privileged: true } }", "securityContext"),
        ("sidecar: { user: root }", "user"),
        ("sidecar: { user: '0:0' }", "user"),
        ("sidecar: { pins: /tmp }", "pins"),
        ("capture: iptables", "capture"),
        ("mode: node\ncapture: nftables", "capture: nftables is the sidecar's"),
        ("sidecar: { seccompProfile: { type: Localhost } }", "localhostProfile"),
        ("sidecar: { seccompProfile: { type: RuntimeDefault, localhostProfile: x } }", "seccompProfile"),
        ("mode: injector\ninjector: { failurePolicy: fail }", "failurePolicy"),
        ("mode: injector\ninjector: { namespaceSelector: null }", "namespaceSelector"),
        ("mode: injector\ninjector: { replicas: 0 }", "replicas"),
        ("mode: node\nnode: { label: guard }", "label"),
        ("mode: node\nnode: { namespaces: [Prod] }", "namespaces"),
        ("mode: node\nnode: { kubelet: var/lib/kubelet }", "kubelet"),
        ("mode: node\nnode: { hostNetwork: true }", "hostNetwork"),
        ("image: { digest: latest }", "digest"),
        ("metrics: { port: 0, serviceMonitor: { enabled: true } }", "port"),
        ("audit: { to: 'https://key:word@collector' }", "to"),
        ("mode: injector\nmetrics: { port: 1, serviceMonitor: { enabled: true } }", "PodMonitor"),
        ("policy: { policy: { version: 2 } }", "version"),
        ("spiffe: { enabled: yes-please }", "enabled"),
        ("spiffe: { enabled: true, driver: CSI }", "driver"),
        ("spiffe: { enabled: true, socket: ../other.sock }", "socket"),
        ("spiffe: { enabled: true, path: /run/spire }", "path"),
        ("mode: node\nspiffe: { enabled: true }", "policies of a node match by `pod`"),
    ] {
        let values_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&values_file, values).unwrap();
        let output = helm(&["refuse", values_file.path().to_str().unwrap()]).ok();
        assert!(output.contains(why), "{values}: {output}");
    }
}

/// `helm upgrade --reuse-values` combines a new chart with the old values, which lack newer keys.
#[test]
fn previous_chart_values_still_work() {
    let before = workspace_file("tests/kubernetes/values-0.1.0.yaml");
    for name in
        ["sidecar", "sidecar-command", "sidecar-names", "injector", "injector-selected", "injector-one"]
    {
        let values = workspace_file(&format!("helm/agentsecrets/ci/{name}.yaml"));
        let again: Vec<Value> =
            helm(&["reuse", before.to_str().unwrap(), values.to_str().unwrap()]).json_lines();
        assert_eq!(again, render(&values), "{name}");
    }
}

#[test]
fn agent_container_has_no_secret_or_privilege() {
    let manifests = render(&workspace_file("helm/agentsecrets/ci/sidecar.yaml"));
    let pod = &of_kind(&manifests, "Deployment")["spec"]["template"]["spec"];
    let agent = &pod["containers"][0];
    assert_eq!(agent["securityContext"]["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(pod["automountServiceAccountToken"], false);
    let mounts: Vec<_> =
        agent["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["name"]).collect();
    assert_eq!(mounts, ["agentsecrets-public"]);
    let env = agent["env"].as_array().unwrap();
    assert!(env.iter().all(|variable| variable.get("valueFrom").is_none()), "{env:?}");
    let of = |name: &str| env.iter().find(|variable| variable["name"] == name).map(|it| &it["value"]);
    assert_eq!(of("STRIPE_KEY").unwrap(), "AS_SECRET_STRIPE_KEY");
    // Every CA variable that `run` sets is set here too.
    use agentsecrets::tls::bundle::{CA_BUNDLE_VARIABLES, EXTRA_CA_VARIABLES};
    for name in CA_BUNDLE_VARIABLES {
        assert_eq!(of(name).unwrap(), "/run/agentsecrets/public/bundle.pem", "{name}");
    }
    for name in EXTRA_CA_VARIABLES {
        assert_eq!(of(name).unwrap(), "/run/agentsecrets/public/ca.pem", "{name}");
    }
}

#[test]
fn workload_api_socket_is_sidecar_only() {
    let of_chart = render(&workspace_file("helm/agentsecrets/ci/sidecar-spiffe.yaml"));
    let pod = of_kind(&of_chart, "Deployment")["spec"]["template"]["spec"].clone();
    let manifests = render(&workspace_file("helm/agentsecrets/ci/injector-spiffe.yaml"));
    let text = of_kind(&manifests, "ConfigMap")["data"]["sidecar.yaml"].as_str().unwrap();
    let fragment =
        agentsecrets::kubernetes::sidecar_template::SidecarTemplate::parse(text, "s".as_ref()).unwrap();
    let agent = serde_json::json!({ "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "agent", "image": "a" }] } });
    let injected =
        agentsecrets::kubernetes::inject::inject(serde_json::from_value(agent).unwrap(), &fragment).unwrap();
    let injected = serde_json::to_value(injected).unwrap()["spec"].clone();
    let of_driver =
        [(pod, "csi.spiffe.io", "spire-agent.sock"), (injected, "csi.spiffe.example.org", "agent.sock")];
    for (pod, driver, socket) in of_driver {
        let named = |list: &Value| -> Vec<Value> {
            let named =
                list.as_array().into_iter().flatten().filter(|it| it["name"] == "agentsecrets-spiffe");
            named.cloned().collect()
        };
        let volume = serde_json::json!({ "name": "agentsecrets-spiffe", "csi": { "driver": driver, "readOnly": true } });
        assert_eq!(named(&pod["volumes"]), [volume]);
        let mount = serde_json::json!({ "name": "agentsecrets-spiffe", "mountPath": "/spiffe-workload-api", "readOnly": true });
        assert_eq!(named(&pod["initContainers"][0]["volumeMounts"]), [mount]);
        let args = pod["initContainers"][0]["args"].as_array().unwrap();
        assert!(args.contains(&format!("--spiffe=unix:///spiffe-workload-api/{socket}").into()), "{args:?}");
        assert!(named(&pod["containers"][0]["volumeMounts"]).is_empty());
    }
}

#[test]
fn manifests_hold_no_values_and_minimal_rbac() {
    for entry in std::fs::read_dir(workspace_file("helm/agentsecrets/ci")).unwrap() {
        for manifest in render(&entry.unwrap().path()) {
            let holds = manifest["kind"] == "Secret"
                && (manifest.get("data").is_some() || manifest.get("stringData").is_some());
            assert!(!holds, "{manifest}");
            let kind = manifest["kind"].as_str().unwrap();
            for rule in manifest["rules"].as_array().into_iter().flatten().filter(|_| kind.ends_with("Role"))
            {
                if *rule
                    == serde_json::json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] })
                {
                    continue;
                }
                assert!(rule["resourceNames"].as_array().is_some_and(|names| names.len() == 1), "{manifest}");
                assert_eq!(rule["verbs"], serde_json::json!(["get", "update"]), "{manifest}");
            }
        }
    }
}

#[test]
fn chart_policy_is_valid() {
    let manifests = render(&workspace_file("helm/agentsecrets/ci/sidecar.yaml"));
    let data = &of_kind(&manifests, "ConfigMap")["data"];
    let folder = tempfile::tempdir().unwrap();
    for name in ["policy.yaml", "config.yaml"] {
        std::fs::write(folder.path().join(name), data[name].as_str().unwrap()).unwrap();
    }
    let policy = agentsecrets::policy::Policy::load(&folder.path().join("policy.yaml")).unwrap();
    assert_eq!(policy.agents()[0].name().as_str(), "coder");
    agentsecrets::config::Config::load(&folder.path().join("config.yaml")).unwrap();
}

#[test]
fn daemonset_has_minimal_privileges() {
    let manifests = render(&workspace_file("helm/agentsecrets/ci/node.yaml"));
    let pod = &of_kind(&manifests, "DaemonSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let granted = container["securityContext"]["capabilities"]["add"].as_array().unwrap();
    let granted: Vec<_> = granted.iter().map(|name| name.as_str().unwrap().to_lowercase()).collect();
    assert_eq!(granted, super::node::GRANTED);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert!(container["securityContext"].get("privileged").is_none());
    assert_eq!(pod["hostPID"], true);
    assert!(pod.get("hostNetwork").is_none() && pod.get("initContainers").is_none());
    // Host mounts: the cgroup tree (read-only), our pins, and pods' volumes.
    let volumes = pod["volumes"].as_array().unwrap().iter();
    let paths: Vec<_> = volumes.filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
    assert_eq!(paths, ["/sys/fs/cgroup", "/sys/fs/bpf/agentsecrets", "/var/lib/kubelet/pods"]);
    assert_eq!(container["volumeMounts"][0]["readOnly"], true);
    // The program accepts the chart's arguments.
    let words: Vec<_> =
        container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let mut started = crate::support::process::command(crate::support::home::AGENTSECRETS);
    let folder = tempfile::tempdir().unwrap();
    started.args(words).env("NODE_NAME", "worker").env("AGENTSECRETS_HOME", folder.path());
    let output = crate::support::process::run(&mut started);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("no cgroup of pods in /host/cgroup"), "{output:?}");
}

#[test]
fn prometheus_port_is_annotated_and_open() {
    for values in ["sidecar-metrics.yaml", "node-metrics.yaml"] {
        let manifests = render(&workspace_file(&format!("helm/agentsecrets/ci/{values}")));
        let workload = manifests.iter().find(|it| it["spec"]["template"].is_object()).unwrap();
        let pod = &workload["spec"]["template"];
        let containers = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        let mut containers = containers.chain(pod["spec"]["containers"].as_array().unwrap());
        let ours = containers.find(|it| it["args"].to_string().contains("--metrics=0.0.0.0:9464")).unwrap();
        assert_eq!(ours["ports"][0]["containerPort"], 9464);
        let service =
            manifests.iter().find(|it| it["metadata"]["name"] == "demo-agentsecrets-metrics").unwrap();
        assert_eq!(service["spec"]["ports"][0]["targetPort"], ours["ports"][0]["containerPort"]);
        for (label, value) in service["spec"]["selector"].as_object().unwrap() {
            assert_eq!(&pod["metadata"]["labels"][label], value, "{label}");
        }
        if values.starts_with("sidecar") {
            let monitor = of_kind(&manifests, "ServiceMonitor");
            assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
            for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
                assert_eq!(&service["metadata"]["labels"][label], value, "{label}");
            }
            assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
            let policy = of_kind(&manifests, "NetworkPolicy");
            assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], 9464);
            assert!(ours["args"].to_string().contains("--audit-to=http://collector.observability:4318"));
        }
    }
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap()
}
