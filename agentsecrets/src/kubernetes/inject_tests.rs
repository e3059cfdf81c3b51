//! Tests of injection and validation.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::inject::{INJECTED_ANNOTATION, inject};
use crate::kubernetes::admission_review;
use crate::kubernetes::sidecar_template::SidecarTemplate;

const TEMPLATE: &str = "
initContainers:
  - { name: agentsecrets-loader, image: our:1, securityContext: { runAsUser: 0 } }
  - { name: agentsecrets, image: our:1, restartPolicy: Always, securityContext: { runAsUser: 64646 } }
volumes:
  - { name: agentsecrets-trust, emptyDir: {} }
  - { name: agentsecrets-secrets, secret: { secretName: spend } }
container:
  env: [ { name: SSL_CERT_FILE, value: /run/agentsecrets/bundle.pem }, { name: KEY, value: AS_SECRET_KEY } ]
  volumeMounts: [ { name: agentsecrets-trust, mountPath: /run/agentsecrets, readOnly: true } ]
secrets: [spend]
uids: [64646]
";

fn template() -> SidecarTemplate {
    SidecarTemplate::parse(TEMPLATE, Path::new("sidecar.yaml")).unwrap()
}

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "coder", "labels": { "app": "coder" } },
        "spec": {
            "initContainers": [{ "name": "clone", "image": "git:1" }],
            "containers": [{
                "name": "agent",
                "image": "agent:1",
                "env": [{ "name": "KEY", "value": "sk_real" }, { "name": "OTHER", "value": "x" }],
                "volumeMounts": [{ "name": "work", "mountPath": "/work" }],
            }],
            "volumes": [{ "name": "work", "emptyDir": {} }],
        },
    });
    change(&mut pod);
    pod
}

fn injected(pod: &Value) -> Result<Value, Vec<String>> {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    inject(pod, &template()).map(|pod| serde_json::to_value(pod).unwrap())
}

fn rejected(change: impl FnOnce(&mut Value)) -> String {
    injected(&pod(change)).expect_err("the pod is refused").join("; ")
}

#[test]
fn sidecar_starts_first_and_agents_are_confined() {
    let injected = injected(&pod(|_| {})).unwrap();
    let spec = &injected["spec"];
    let init = spec["initContainers"].as_array().unwrap();
    let names: Vec<_> = init.iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["agentsecrets-loader", "agentsecrets", "clone"]);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(injected["metadata"]["annotations"][INJECTED_ANNOTATION], "true");
    for container in [&init[2], &spec["containers"][0]] {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        let env = container["env"].as_array().unwrap();
        assert!(env.contains(&json!({ "name": "KEY", "value": "AS_SECRET_KEY" })), "{env:?}");
        assert!(!container.to_string().contains("sk_real"));
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/run/agentsecrets"));
    }
    let env = spec["containers"][0]["env"].as_array().unwrap();
    assert!(env.contains(&json!({ "name": "OTHER", "value": "x" })));
}

#[test]
fn injection_is_idempotent() {
    let once = injected(&pod(|_| {})).unwrap();
    assert_eq!(injected(&once).unwrap(), once);
    // The API server fills in defaults and calls the webhook again.
    let mut filled = once.clone();
    filled["spec"]["initContainers"][1]["terminationMessagePath"] = "/dev/termination-log".into();
    filled["spec"]["volumes"][2]["secret"]["defaultMode"] = 420.into();
    assert_eq!(injected(&filled).unwrap(), once);
}

/// Network rules exempt the sidecar's user, and an image's own user, which nobody sees, could be that one.
#[test]
fn explicit_user_is_required_if_sidecar_user_is_exempt() {
    let text = format!("{TEMPLATE}explicitUsers: true\n");
    let template = SidecarTemplate::parse(&text, Path::new("sidecar.yaml")).unwrap();
    let inject_with = |change: fn(&mut Value)| {
        let pod: Pod = serde_json::from_value(pod(change)).unwrap();
        inject(pod, &template).map(drop).map_err(|reasons| reasons.join("; "))
    };
    let rejected = inject_with(|_| {}).unwrap_err();
    for name in ["clone", "agent"] {
        assert!(rejected.contains(&format!("container {name}: it must set runAsUser")), "{rejected}");
    }
    inject_with(|pod| pod["spec"]["securityContext"] = json!({ "runAsUser": 1000 })).unwrap();
    let rejected =
        inject_with(|pod| agent(pod)["securityContext"] = json!({ "runAsUser": 1000 })).unwrap_err();
    assert!(rejected.contains("container clone") && !rejected.contains("container agent"), "{rejected}");
}

#[test]
fn bypassing_pod_is_rejected_with_reason() {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change)] = &[
        ("hostNetwork", |pod| pod["spec"]["hostNetwork"] = true.into()),
        ("hostPID", |pod| pod["spec"]["hostPID"] = true.into()),
        ("hostIPC", |pod| pod["spec"]["hostIPC"] = true.into()),
        ("hostUsers", |pod| pod["spec"]["hostUsers"] = false.into()),
        ("shareProcessNamespace", |pod| pod["spec"]["shareProcessNamespace"] = true.into()),
        ("automountServiceAccountToken", |pod| pod["spec"]["automountServiceAccountToken"] = true.into()),
        ("runAsUser: 0", |pod| pod["spec"]["securityContext"] = json!({ "runAsUser": 0 })),
        ("runAsNonRoot", |pod| pod["spec"]["securityContext"] = json!({ "runAsNonRoot": false })),
        ("the sidecar's own user", |pod| pod["spec"]["securityContext"] = json!({ "runAsUser": 64646 })),
        ("securityContext.appArmorProfile", |pod| {
            pod["spec"]["securityContext"] = json!({ "appArmorProfile": { "type": "Unconfined" } });
        }),
        ("sysctls", |pod| {
            pod["spec"]["securityContext"] =
                json!({ "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }] });
        }),
        ("privileged", |pod| context(pod, json!({ "privileged": true }))),
        ("allowPrivilegeEscalation", |pod| context(pod, json!({ "allowPrivilegeEscalation": true }))),
        ("capability NET_RAW", |pod| context(pod, json!({ "capabilities": { "add": ["NET_RAW"] } }))),
        ("capability CAP_SYS_ADMIN", |pod| {
            context(pod, json!({ "capabilities": { "add": ["cap_sys_admin"] } }));
        }),
        ("runAsUser: 0", |pod| context(pod, json!({ "runAsUser": 0 }))),
        ("the sidecar's own user", |pod| context(pod, json!({ "runAsUser": 64646 }))),
        ("procMount", |pod| context(pod, json!({ "procMount": "Unmasked" }))),
        ("seccompProfile", |pod| context(pod, json!({ "seccompProfile": { "type": "Unconfined" } }))),
        ("seccompProfile", |pod| {
            pod["spec"]["securityContext"] = json!({ "seccompProfile": { "type": "Unconfined" } });
            context(pod, json!({}));
        }),
        ("appArmorProfile", |pod| context(pod, json!({ "appArmorProfile": { "type": "Unconfined" } }))),
        ("hostPath", |pod| volume(pod, json!({ "name": "x", "hostPath": { "path": "/run" } }))),
        ("secrets that the agent must not have", |pod| {
            volume(pod, json!({ "name": "x", "secret": { "secretName": "spend" } }));
        }),
        ("secrets that the agent must not have", |pod| {
            let sources = json!([{ "secret": { "name": "spend" } }]);
            volume(pod, json!({ "name": "x", "projected": { "sources": sources } }));
        }),
        ("a token of the pod's account", |pod| {
            let sources = json!([{ "serviceAccountToken": { "path": "token" } }]);
            volume(pod, json!({ "name": "x", "projected": { "sources": sources } }));
        }),
        ("the name is the API server's own", |pod| account(pod, json!({ "secret": { "name": "spend" } }))),
        ("the name is the API server's own", |pod| account(pod, json!({ "secret": { "name": "other" } }))),
        ("the name is the API server's own", |pod| account(pod, json!({ "configMap": { "name": "other" } }))),
        ("the name is the API server's own", |pod| {
            account(pod, json!({ "serviceAccountToken": { "path": "another" } }));
        }),
        ("the name is the API server's own", |pod| {
            account(pod, json!({ "podCertificate": { "keyType": "ED25519", "signerName": "a.test/b" } }));
        }),
        ("the name is the API server's own", |pod| {
            let field = json!({ "path": "uid", "fieldRef": { "fieldPath": "metadata.uid" } });
            account(pod, json!({ "downwardAPI": { "items": [field] } }));
        }),
        ("the name is the API server's own", |pod| {
            account(pod, Value::Null);
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            volumes[1]["projected"]["sources"][0]["serviceAccountToken"]["audience"] = "vault".into();
        }),
        ("the name is the API server's own", |pod| {
            volume(pod, json!({ "name": "kube-api-access-x7k2p", "hostPath": { "path": "/run" } }));
        }),
        ("the name is the API server's own", |pod| {
            volume(pod, json!({ "name": "kube-api-access-x7k2p", "emptyDir": {} }));
        }),
        ("a value of Secret spend", |pod| {
            agent(pod)["env"] =
                json!([{ "name": "K", "valueFrom": { "secretKeyRef": { "name": "spend", "key": "K" } } }]);
        }),
        ("the values of Secret spend", |pod| {
            agent(pod)["envFrom"] = json!([{ "secretRef": { "name": "spend" } }]);
        }),
        ("volume agentsecrets-secrets is the sidecar's", |pod| {
            agent(pod)["volumeMounts"] = json!([{ "name": "agentsecrets-secrets", "mountPath": "/x" }]);
        }),
        ("volumeDevices", |pod| {
            agent(pod)["volumeDevices"] = json!([{ "name": "x", "devicePath": "/dev/x" }]);
        }),
        ("hostPort", |pod| {
            agent(pod)["ports"] = json!([{ "containerPort": 80, "hostPort": 80 }]);
        }),
        ("the name is the sidecar's", |pod| agent(pod)["name"] = "agentsecrets".into()),
        ("the name is the sidecar's", |pod| {
            volume(pod, json!({ "name": "agentsecrets-trust", "hostPath": { "path": "/" } }));
        }),
        ("privileged", |pod| {
            let context = json!({ "privileged": true });
            pod["spec"]["initContainers"][0]["securityContext"] = context;
        }),
        ("it would share the sidecar's processes", |pod| {
            pod["spec"]["ephemeralContainers"] =
                json!([{ "name": "debug", "targetContainerName": "agentsecrets" }]);
        }),
        ("capability SYS_PTRACE", |pod| {
            let context = json!({ "capabilities": { "add": ["SYS_PTRACE"] } });
            pod["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "securityContext": context }]);
        }),
        ("it must set capabilities.drop: [ALL]", |pod| {
            debugged(pod, json!({ "allowPrivilegeEscalation": false, "runAsNonRoot": true }));
        }),
        ("it must set allowPrivilegeEscalation: false", |pod| {
            debugged(pod, json!({ "capabilities": { "drop": ["ALL"] }, "runAsNonRoot": true }));
        }),
        ("it must set runAsNonRoot: true", |pod| {
            debugged(pod, json!({ "capabilities": { "drop": ["ALL"] }, "allowPrivilegeEscalation": false }));
        }),
    ];
    for (reason, change) in cases {
        let why = rejected(change);
        assert!(why.contains(reason), "{reason}: {why}");
    }
}

fn agent(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

fn context(pod: &mut Value, context: Value) {
    agent(pod)["securityContext"] = context;
}

fn volume(pod: &mut Value, volume: Value) {
    pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
}

fn debugged(pod: &mut Value, context: Value) {
    pod["spec"]["ephemeralContainers"] =
        json!([{ "name": "debug", "targetContainerName": "agent", "securityContext": context }]);
}

/// Adds the API server's token volume, with one `more` source, and its mounts.
fn account(pod: &mut Value, more: Value) {
    let namespace =
        json!({ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } });
    let mut sources = vec![
        json!({ "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } }),
        json!({ "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } }),
        json!({ "downwardAPI": { "items": [namespace] } }),
    ];
    sources.extend((!more.is_null()).then_some(more));
    let projected = json!({ "defaultMode": 420, "sources": sources });
    volume(pod, json!({ "name": "kube-api-access-x7k2p", "projected": projected }));
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mount = json!({ "name": "kube-api-access-x7k2p", "readOnly": true, "mountPath": path });
    agent(pod)["volumeMounts"].as_array_mut().unwrap().push(mount.clone());
    pod["spec"]["initContainers"][0]["volumeMounts"] = json!([mount]);
}

#[test]
fn default_token_volume_is_removed() {
    let taken = injected(&pod(|pod| account(pod, Value::Null))).unwrap();
    assert!(!taken.to_string().contains("kube-api-access"), "{taken}");
    assert_eq!(taken, injected(&pod(|_| {})).unwrap());
}

#[test]
fn duplicate_variables_are_replaced() {
    let injected = injected(&pod(|pod| {
        let env = agent(pod)["env"].as_array_mut().unwrap();
        env.push(json!({ "name": "KEY", "value": "sk_real_again" }));
    }))
    .unwrap();
    assert!(!injected.to_string().contains("sk_real"), "{injected}");
}

fn reviewed(pod: &Value, operation: &str, sub_resource: Option<&str>) -> Value {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "subResource": sub_resource,
            "namespace": "agents",
            "operation": operation,
            "userInfo": { "username": "somebody" },
            "object": pod,
            "oldObject": null,
        },
    });
    let answered = admission_review::review(review.to_string().as_bytes(), &template()).unwrap();
    serde_json::from_slice::<Value>(&answered).unwrap()["response"].clone()
}

#[test]
fn patch_equals_injection() {
    use base64::Engine;

    let mut pod = pod(|_| {});
    let response = reviewed(&pod, "CREATE", None);
    assert_eq!((&response["allowed"], &response["patchType"]), (&true.into(), &"JSONPatch".into()));
    let patch =
        base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let expected = injected(&pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert_eq!(serde_json::from_value::<Pod>(pod).unwrap(), serde_json::from_value::<Pod>(expected).unwrap());
}

#[test]
fn ephemeral_container_is_validated() {
    let bad = pod(|pod| pod["spec"]["hostPID"] = true.into());
    let response = reviewed(&bad, "CREATE", None);
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&false.into(), &403.into()));
    assert!(response["status"]["message"].as_str().unwrap().contains("hostPID"));
    let own = json!({
        "capabilities": { "drop": ["ALL"] }, "allowPrivilegeEscalation": false, "runAsNonRoot": true,
    });
    let confined = pod(|pod| debugged(pod, own));
    assert_eq!(reviewed(&confined, "UPDATE", Some("ephemeralcontainers"))["allowed"], true);
    let pods = pod(|pod| {
        debugged(pod, json!({ "capabilities": { "drop": ["ALL"] }, "allowPrivilegeEscalation": false }));
        pod["spec"]["securityContext"] = json!({ "runAsNonRoot": true });
    });
    assert_eq!(reviewed(&pods, "UPDATE", Some("ephemeralcontainers"))["allowed"], true);
    // An ephemeral container gets no defaults from the webhook.
    let open = pod(|pod| {
        pod["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "targetContainerName": "agent" }]);
    });
    assert_eq!(reviewed(&open, "UPDATE", Some("ephemeralcontainers"))["allowed"], false);
    let spied = pod(|pod| {
        pod["spec"]["ephemeralContainers"] =
            json!([{ "name": "debug", "targetContainerName": "agentsecrets" }]);
    });
    assert_eq!(reviewed(&spied, "UPDATE", Some("ephemeralcontainers"))["allowed"], false);
}

#[test]
fn malformed_review_is_an_error() {
    for body in ["", "{}", "null", "{\"request\":null}", "[1]", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}"] {
        assert!(admission_review::review(body.as_bytes(), &template()).is_err(), "{body}");
    }
    assert!(SidecarTemplate::parse("initContainers: []", Path::new("f")).is_err());
    assert!(SidecarTemplate::parse(&format!("{TEMPLATE}\nunknown: 1"), Path::new("f")).is_err());
}
