//! The ValidatingAdmissionPolicy, evaluated with CEL's reference implementation: the webhook's pods pass,
//! pods that bypassed it do not.

use serde_json::{Value, json};

use super::{render, workspace_file};
use crate::support::process::{command, run_with_input};

/// A change of a pod, and the expected reason of its rejection.
type Case = (Change, &'static str);
type Change = Box<dyn FnOnce(&mut Value)>;

struct Policy {
    policy: Value,
    fragment: agentsecrets::kubernetes::sidecar_template::SidecarTemplate,
}

impl Policy {
    /// The chart's policy for a values file.
    fn from_values(values: &str) -> Self {
        let manifests = render(&workspace_file("helm/agentsecrets/ci").join(values));
        let of_kind = |kind: &str| manifests.iter().find(|it| it["kind"] == kind).unwrap();
        let text = of_kind("ConfigMap")["data"]["sidecar.yaml"].as_str().unwrap();
        let fragment =
            agentsecrets::kubernetes::sidecar_template::SidecarTemplate::parse(text, "s".as_ref()).unwrap();
        Self { policy: of_kind("ValidatingAdmissionPolicy").clone(), fragment }
    }

    /// `pod` as the webhook changes it.
    fn injected(&self, pod: &Value) -> Result<Value, Vec<String>> {
        let pod = serde_json::from_value(pod.clone()).unwrap();
        let made = agentsecrets::kubernetes::inject::inject(pod, &self.fragment)?;
        Ok(serde_json::to_value(made).unwrap())
    }

    /// The API server's verdict for each pod.
    fn evaluate(&self, pods: &[Value]) -> Vec<Vec<String>> {
        let mut python = command("/usr/bin/python3");
        python
            .env("PYTHONPATH", workspace_file("target/test-clients/kubernetes"))
            .arg(workspace_file("tests/kubernetes/admission.py"));
        let input = json!({ "policy": self.policy, "pods": pods });
        run_with_input(&mut python, input.to_string().as_bytes()).json_lines()
    }
}

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "metadata": { "name": "coder" },
        "spec": {
            "initContainers": [{ "name": "clone", "image": "git:1" }],
            "containers": [{ "name": "agent", "image": "agent:1", "volumeMounts": [{ "name": "work", "mountPath": "/w" }] }],
            "volumes": [{ "name": "work", "emptyDir": {} }],
            "securityContext": { "runAsUser": 1000 },
        },
    });
    change(&mut pod);
    pod
}

/// With programs, with rules, with a streaming sidecar, and with one that reads the pod's SPIFFE id.
const VALUES: [&str; 4] =
    ["injector.yaml", "injector-nftables.yaml", "injector-metrics.yaml", "injector-spiffe.yaml"];

#[test]
fn injected_pod_passes_admission() {
    for values in VALUES {
        let policy = Policy::from_values(values);
        let plain = pod(|_| {});
        let users = pod(|pod| pod["spec"]["containers"][0]["securityContext"] = json!({ "runAsUser": 2000 }));
        let alone = pod(|pod| drop(pod["spec"].as_object_mut().unwrap().remove("initContainers")));
        let good = [&plain, &users, &alone].map(|pod| policy.injected(pod).unwrap());
        assert_eq!(policy.evaluate(&good), vec![Vec::<String>::new(); 3], "{values}");
        let output = policy.evaluate(&[plain, users, alone]);
        assert!(
            output.iter().all(|output| output[0].contains("starts with the AgentSecrets sidecar")),
            "{output:?}"
        );
    }
}

#[test]
fn pod_change_that_bypasses_sidecar_is_refused() {
    for values in VALUES {
        assert_each_change_refused(&Policy::from_values(values));
    }
    // Rules recognise the sidecar by its uid, which a custom image must not set.
    let policy = Policy::from_values("injector-nftables.yaml");
    let mut silent = policy.injected(&pod(|_| {})).unwrap();
    silent["spec"]["securityContext"] = Value::Null;
    prune(&mut silent);
    let output = policy.evaluate(&[silent]);
    assert!(output[0].iter().any(|output| output.contains("as the sidecar")), "{output:?}");
}

fn assert_each_change_refused(policy: &Policy) {
    let guarded = policy.injected(&pod(|_| {})).unwrap();
    let context = |name: &str, value: Value| {
        let name = name.to_owned();
        move |container: &mut Value| container["securityContext"][&name] = value
    };
    let sidecar = |key: &'static str, value: Value| {
        let change = move |pod: &mut Value| pod["spec"]["initContainers"][0][key] = value;
        Box::new(change) as Change
    };
    let spec =
        |key: &'static str, value: Value| Box::new(move |pod: &mut Value| pod["spec"][key] = value) as Change;
    let volume = |name: &'static str, source: Value| {
        let change = move |pod: &mut Value| {
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            volumes.retain(|volume| volume["name"] != name);
            let mut volume = source;
            volume["name"] = name.into();
            volumes.push(volume);
        };
        Box::new(change) as Change
    };
    let mut cases: Vec<Case> = vec![
        (spec("initContainers", json!([])), "starts with"),
        (Box::new(|pod| pod["spec"]["initContainers"].as_array_mut().unwrap().swap(0, 1)), "starts with"),
        (sidecar("name", "agentsecret".into()), "starts with"),
        (sidecar("image", "evil/agentsecrets:1".into()), "starts with"),
        (sidecar("restartPolicy", Value::Null), "starts with"),
        (sidecar("command", json!(["/bin/sleep"])), "is not started as"),
        (sidecar("args", json!(["--version"])), "is not started as"),
        (
            sidecar("args", json!(["sidecar", "--capture", "ebpf", "--user", "1000:1000"])),
            "is not started as",
        ),
        (
            sidecar("startupProbe", json!({ "exec": { "command": ["/agentsecrets", "--version"] } })),
            "is not started as",
        ),
        (sidecar("env", json!([{ "name": "AGENTSECRETS_HOME", "value": "/w" }])), "is not started as"),
        (sidecar("envFrom", json!([{ "configMapRef": { "name": "mine" } }])), "is not started as"),
        (sidecar("lifecycle", json!({ "postStart": { "exec": { "command": ["x"] } } })), "is not started as"),
        (
            sidecar("volumeMounts", json!([{ "name": "work", "mountPath": "/config/agentsecrets" }])),
            "is not started as",
        ),
        (
            Box::new(|pod| pod["spec"]["initContainers"][0]["securityContext"]["privileged"] = true.into()),
            "is not started as",
        ),
        (
            volume("agentsecrets-policy", json!({ "configMap": { "name": "mine" } })),
            "policy of a guarded pod",
        ),
        (volume("agentsecrets-policy", json!({ "emptyDir": {} })), "policy of a guarded pod"),
        (volume("agentsecrets-cgroup", json!({ "hostPath": { "path": "/" } })), "files of the node"),
        (volume("agentsecrets-pins", json!({ "hostPath": { "path": "/etc" } })), "files of the node"),
        (spec("securityContext", json!({ "runAsUser": 0 })), "as root"),
        (spec("securityContext", json!({ "runAsUser": 64646 })), "as the sidecar"),
        (spec("hostNetwork", true.into()), "no namespace"),
        (spec("hostPID", true.into()), "no namespace"),
        (spec("hostIPC", true.into()), "no namespace"),
        (spec("shareProcessNamespace", true.into()), "no namespace"),
        (
            Box::new(|pod| {
                pod["spec"]["volumes"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({ "name": "h", "hostPath": { "path": "/" } }))
            }),
            "files of the node",
        ),
    ];
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let changes: [Case; 10] = [
            (Box::new(|it| it["securityContext"] = Value::Null), "privileged"),
            (Box::new(context("privileged", true.into())), "privileged"),
            (Box::new(context("allowPrivilegeEscalation", true.into())), "privileged"),
            (Box::new(context("allowPrivilegeEscalation", Value::Null)), "privileged"),
            (Box::new(context("capabilities", json!({}))), "capabilities"),
            (Box::new(context("runAsUser", 0.into())), "as root"),
            (Box::new(context("runAsNonRoot", false.into())), "may be root"),
            (Box::new(context("runAsUser", 64646.into())), "as the sidecar"),
            (
                Box::new(|it| {
                    it["volumeMounts"] =
                        json!([{ "name": "agentsecrets-secrets", "mountPath": "/s", "readOnly": true }])
                }),
                "the sidecar's",
            ),
            (
                Box::new(|it| {
                    it["volumeMounts"] = json!([{ "name": "agentsecrets-public", "mountPath": "/s" }])
                }),
                "the sidecar's",
            ),
        ];
        for (change, why) in changes {
            let changed = move |pod: &mut Value| {
                // The last container is an agent's, or an added ephemeral one in a running pod.
                let spec = &mut pod["spec"];
                if kind == "ephemeralContainers" {
                    spec[kind] = json!([spec["containers"][0].clone()]);
                }
                change(spec[kind].as_array_mut().unwrap().last_mut().unwrap());
            };
            cases.push((Box::new(changed), why));
        }
    }
    let (pods, reasons): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .map(|(change, why)| {
            let mut pod = guarded.clone();
            change(&mut pod);
            prune(&mut pod);
            (pod, why)
        })
        .unzip();
    for ((output, why), pod) in policy.evaluate(&pods).iter().zip(&reasons).zip(&pods) {
        assert!(output.iter().any(|output| output.contains(why)), "{why}: {output:?} {pod}");
    }
    assert_eq!(policy.evaluate(&[guarded]), [Vec::<String>::new()]);
}

#[test]
fn pod_with_fake_workload_api_is_refused() {
    let policy = Policy::from_values("injector-spiffe.yaml");
    let guarded = policy.injected(&pod(|_| {})).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut pod = guarded.clone();
        change(&mut pod["spec"]);
        pod
    };
    let volume = |source: Value| {
        changed(&|spec| {
            let volumes = spec["volumes"].as_array_mut().unwrap();
            volumes.retain(|volume| volume["name"] != "agentsecrets-spiffe");
            let mut volume = source.clone();
            volume["name"] = "agentsecrets-spiffe".into();
            volumes.push(volume);
        })
    };
    let mounted = |name: &str, at: &str| {
        changed(&|spec| {
            let mounts = spec["initContainers"][0]["volumeMounts"].as_array_mut().unwrap();
            mounts.push(json!({ "name": name, "mountPath": at }));
        })
    };
    let unmounted = changed(&|spec| {
        let mounts = spec["initContainers"][0]["volumeMounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["name"] != "agentsecrets-spiffe");
    });
    let pods = [
        volume(json!({ "emptyDir": {} })),
        volume(json!({ "persistentVolumeClaim": { "claimName": "mine" } })),
        volume(json!({ "csi": { "driver": "mine.example.org" } })),
        mounted("agentsecrets-state", "/spiffe-workload-api"),
        mounted("agentsecrets-state", "/x/..//spiffe-workload-api/"),
        mounted("agentsecrets-spiffe", "/elsewhere"),
        unmounted,
    ];
    for output in policy.evaluate(&pods) {
        assert!(output.iter().any(|output| output.contains("and nobody in the pod")), "{output:?}");
    }
    assert_eq!(policy.evaluate(std::slice::from_ref(&guarded)), [Vec::<String>::new()]);
}

/// The webhook and the policy refuse the same capabilities.
#[test]
fn policy_and_webhook_refuse_same_capabilities() {
    let policy = Policy::from_values("injector.yaml");
    let guarded = policy.injected(&pod(|_| {})).unwrap();
    let (mut past, mut refused) = (Vec::new(), Vec::new());
    for capability in caps::all() {
        let long = capability.to_string();
        let short = long.trim_start_matches("CAP_").to_owned();
        for name in [short.clone(), short.to_lowercase(), long] {
            let add = json!({ "drop": ["ALL"], "add": [name] });
            let input = pod(|pod| {
                pod["spec"]["containers"][0]["securityContext"] = json!({ "capabilities": add.clone() })
            });
            refused.push(policy.injected(&input).is_err());
            let mut pod = guarded.clone();
            pod["spec"]["containers"][0]["securityContext"]["capabilities"] = add;
            past.push(pod);
        }
    }
    let judged: Vec<_> = policy.evaluate(&past).iter().map(|output| !output.is_empty()).collect();
    assert_eq!(judged, refused);
    assert!(refused.contains(&true) && refused.contains(&false));
}

/// The API server omits empty fields instead of sending `null`.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune);
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}
