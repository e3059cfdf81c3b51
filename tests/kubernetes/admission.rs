//! The policy behind the webhook, evaluated with the reference implementation of its language: what the webhook makes
//! of pods passes, and a pod that came past the webhook does not.

use serde_json::{Value, json};

use super::{file, rendered};
use crate::support::process::{command, finish_with};

/// What somebody changes in a pod, and the reason for which that is refused.
type Case = (Change, &'static str);
type Change = Box<dyn FnOnce(&mut Value)>;

struct Policy {
    policy: Value,
    fragment: agentsecrets::kubernetes::sidecar_template::Fragment,
}

impl Policy {
    /// That of the chart with a file of values.
    fn of(values: &str) -> Self {
        let manifests = rendered(&file("helm/agentsecrets/ci").join(values));
        let of_kind = |kind: &str| manifests.iter().find(|it| it["kind"] == kind).unwrap();
        let text = of_kind("ConfigMap")["data"]["sidecar.yaml"].as_str().unwrap();
        let fragment =
            agentsecrets::kubernetes::sidecar_template::Fragment::parse(text, "s".as_ref()).unwrap();
        Self { policy: of_kind("ValidatingAdmissionPolicy").clone(), fragment }
    }

    /// What the webhook makes of `pod`.
    fn injected(&self, pod: &Value) -> Result<Value, Vec<String>> {
        let pod = serde_json::from_value(pod.clone()).unwrap();
        let made = agentsecrets::kubernetes::inject::inject(pod, &self.fragment)?;
        Ok(serde_json::to_value(made).unwrap())
    }

    /// What the API server says of each pod.
    fn judge(&self, pods: &[Value]) -> Vec<Vec<String>> {
        let mut python = command("/usr/bin/python3");
        python
            .env("PYTHONPATH", file("target/test-clients/kubernetes"))
            .arg(file("tests/kubernetes/admission.py"));
        let asked = json!({ "policy": self.policy, "pods": pods });
        let said = finish_with(&mut python, asked.to_string().as_bytes()).ok();
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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

/// With programs, with rules, with a sidecar that streams, and with one that asks who its pod is.
const VALUES: [&str; 4] =
    ["injector.yaml", "injector-nftables.yaml", "injector-metrics.yaml", "injector-spiffe.yaml"];

#[test]
fn what_the_webhook_makes_of_a_pod_passes_and_what_came_past_it_does_not() {
    for values in VALUES {
        let policy = Policy::of(values);
        let plain = pod(|_| {});
        let users = pod(|pod| pod["spec"]["containers"][0]["securityContext"] = json!({ "runAsUser": 2000 }));
        let alone = pod(|pod| drop(pod["spec"].as_object_mut().unwrap().remove("initContainers")));
        let good = [&plain, &users, &alone].map(|pod| policy.injected(pod).unwrap());
        assert_eq!(policy.judge(&good), vec![Vec::<String>::new(); 3], "{values}");
        let said = policy.judge(&[plain, users, alone]);
        assert!(said.iter().all(|said| said[0].contains("starts with the AgentSecrets sidecar")), "{said:?}");
    }
}

#[test]
fn each_change_of_a_guarded_pod_that_lets_it_get_around_the_sidecar_is_refused_with_the_reason() {
    for values in VALUES {
        each_change_is_refused(&Policy::of(values));
    }
    // Where rules tell the sidecar by its user, somebody's own image must not choose it.
    let policy = Policy::of("injector-nftables.yaml");
    let mut silent = policy.injected(&pod(|_| {})).unwrap();
    silent["spec"]["securityContext"] = Value::Null;
    prune(&mut silent);
    let said = policy.judge(&[silent]);
    assert!(said[0].iter().any(|said| said.contains("as the sidecar")), "{said:?}");
}

fn each_change_is_refused(policy: &Policy) {
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
                // The last of them is an agent's; of a pod that runs, one that is added.
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
    for ((said, why), pod) in policy.judge(&pods).iter().zip(&reasons).zip(&pods) {
        assert!(said.iter().any(|said| said.contains(why)), "{why}: {said:?} {pod}");
    }
    assert_eq!(policy.judge(&[guarded]), [Vec::<String>::new()]);
}

#[test]
fn a_guarded_pod_that_would_serve_its_sidecar_a_workload_api_of_its_own_is_refused() {
    let policy = Policy::of("injector-spiffe.yaml");
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
    for said in policy.judge(&pods) {
        assert!(said.iter().any(|said| said.contains("and nobody in the pod")), "{said:?}");
    }
    assert_eq!(policy.judge(std::slice::from_ref(&guarded)), [Vec::<String>::new()]);
}

/// The two lists of capabilities are one.
#[test]
fn a_capability_is_refused_by_the_policy_if_the_webhook_refuses_it() {
    let policy = Policy::of("injector.yaml");
    let guarded = policy.injected(&pod(|_| {})).unwrap();
    let (mut past, mut refused) = (Vec::new(), Vec::new());
    for capability in caps::all() {
        let long = capability.to_string();
        let short = long.trim_start_matches("CAP_").to_owned();
        for name in [short.clone(), short.to_lowercase(), long] {
            let add = json!({ "drop": ["ALL"], "add": [name] });
            let asked = pod(|pod| {
                pod["spec"]["containers"][0]["securityContext"] = json!({ "capabilities": add.clone() })
            });
            refused.push(policy.injected(&asked).is_err());
            let mut pod = guarded.clone();
            pod["spec"]["containers"][0]["securityContext"]["capabilities"] = add;
            past.push(pod);
        }
    }
    let judged: Vec<_> = policy.judge(&past).iter().map(|said| !said.is_empty()).collect();
    assert_eq!(judged, refused);
    assert!(refused.contains(&true) && refused.contains(&false));
}

/// What the API server leaves out is not there, and not `null`.
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
