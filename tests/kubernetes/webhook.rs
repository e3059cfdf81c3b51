//! The webhook, called as the API server calls it: it injects what the chart specifies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{SERVER_NAME, Webhook, render, workspace_file};
use crate::support::certificate::Authority;
use crate::support::process::wait_until;

struct WebhookClient {
    folder: tempfile::TempDir,
    webhook: Webhook,
}

impl WebhookClient {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (certificate, key) = authority.pem_leaf(&[SERVER_NAME.to_owned()]);
        let manifests = render(&workspace_file("helm/agentsecrets/ci/injector.yaml"));
        let sidecar = manifests.iter().find(|it| it["kind"] == "ConfigMap").unwrap();
        let sidecar = sidecar["data"]["sidecar.yaml"].as_str().unwrap();
        let files =
            [("ca.pem", &*authority.pem()), ("tls.crt", &certificate), ("tls.key", &key), ("s", sidecar)];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let at = |name: &str| folder.path().join(name);
        let webhook = Webhook::start(|webhook| {
            webhook.arg("--sidecar").arg(at("s")).arg("--certificate").arg(at("tls.crt"));
            webhook.arg("--key").arg(at("tls.key"));
        });
        Self { folder, webhook }
    }

    fn post(&self, body: &str) -> (u16, String) {
        let path = self.folder.path().join("body");
        std::fs::write(&path, body).unwrap();
        let data = format!("@{}", path.display());
        let more = ["-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", &data];
        self.webhook.post(&self.folder.path().join("ca.pem"), "/inject?timeout=10s", &more)
    }

    fn review(&self, pod: &Value) -> Value {
        let (status, body) = self.post(&admission_review(pod).to_string());
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&"admission.k8s.io/v1".into(), &"AdmissionReview".into())
        );
        assert_eq!(answer["response"]["uid"], admission_review(pod)["request"]["uid"]);
        answer["response"].clone()
    }
}

/// An AdmissionReview as the API server writes it for a pod of a Deployment.
fn admission_review(pod: &Value) -> Value {
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
    json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
        "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "namespace": "agents", "operation": "CREATE",
        "userInfo": {
            "username": "system:serviceaccount:kube-system:replicaset-controller",
            "uid": "a7e0ab33-5f29-11e8-8a3c-36e6bb280816",
            "groups": ["system:serviceaccounts", "system:authenticated"],
        },
        "object": pod, "oldObject": null, "dryRun": false,
        "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
    }})
}

fn pod() -> Value {
    json!({ "kind": "Pod", "apiVersion": "v1",
        "metadata": { "generateName": "coder-5d4f-", "creationTimestamp": null, "labels": { "app": "coder" } },
        "spec": {
            "containers": [{
                "name": "coder", "image": "coder:1", "resources": {}, "terminationMessagePath": "/dev/termination-log",
                "aFieldOfALaterRelease": { "x": 1 },
            }],
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "securityContext": {},
            "schedulerName": "default-scheduler",
        },
        "status": {},
    })
}

/// The pod after the response's patch.
fn patched(pod: &Value, response: &Value) -> Value {
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[test]
fn webhook_injects_sidecar_once() {
    let webhook = WebhookClient::new();
    let pod = pod();
    let response = webhook.review(&pod);
    assert_eq!((&response["allowed"], &response["patchType"]), (&true.into(), &"JSONPatch".into()));
    let guarded = patched(&pod, &response);
    let spec = &guarded["spec"];
    assert_eq!(spec["initContainers"][0]["name"], "agentsecrets");
    assert_eq!(spec["initContainers"][0]["restartPolicy"], "Always");
    assert_eq!(spec["containers"][0]["aFieldOfALaterRelease"]["x"], 1);
    let env = spec["containers"][0]["env"].as_array().unwrap();
    assert!(env.contains(&json!({ "name": "STRIPE_KEY", "value": "AS_SECRET_STRIPE_KEY" })), "{env:?}");
    // It is called again when another webhook changed the pod.
    let again = webhook.review(&guarded);
    assert_eq!((&again["allowed"], again.get("patch")), (&true.into(), None), "{again}");
}

#[test]
fn unsafe_pod_is_refused_with_reason() {
    let webhook = WebhookClient::new();
    let mut bad = pod();
    bad["spec"]["containers"][0]["envFrom"] = json!([{ "secretRef": { "name": "agent-secrets" } }]);
    bad["spec"]["hostPID"] = true.into();
    let response = webhook.review(&bad);
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&false.into(), &403.into()));
    let why = response["status"]["message"].as_str().unwrap();
    assert!(why.contains("hostPID") && why.contains("Secret agent-secrets"), "{why}");
}

#[test]
fn invalid_admission_review_is_an_error() {
    let server = WebhookClient::new();
    let mut configmap = admission_review(&json!({ "kind": "ConfigMap", "apiVersion": "v1", "data": {} }));
    configmap["request"]["kind"]["kind"] = "ConfigMap".into();
    let mut nothing = admission_review(&pod());
    nothing["request"] = Value::Null;
    for body in ["", "{", "[]", &nothing.to_string()] {
        assert_eq!(server.post(body).0, 400, "{body}");
    }
    // An object other than a pod is an error, or is rejected.
    let (status, body) = server.post(&configmap.to_string());
    let response: Value = serde_json::from_str(&body).unwrap_or_default();
    let is_refused = status == 200 && response["response"]["allowed"] == false;
    assert!(status == 400 || is_refused, "{status} {body}");
    let huge = format!("{{\"x\":\"{}\"}}", "a".repeat(9 << 20));
    assert_eq!(server.post(&huge).0, 400);
    let authority = server.folder.path().join("ca.pem");
    assert_eq!(server.webhook.post(&authority, "/healthz", &[]).0, 200);
    assert_eq!(server.webhook.post(&authority, "/readyz", &[]).0, 200);
    assert_eq!(server.webhook.post(&authority, "/inject", &[]).0, 404);
}

#[test]
fn unreadable_sidecar_template_keeps_previous() {
    let server = WebhookClient::new();
    let authority = server.folder.path().join("ca.pem");
    std::fs::write(server.folder.path().join("s"), "initContainers: [").unwrap();
    wait_until("it is told", || server.webhook.post(&authority, "/readyz", &[]).0 == 503);
    assert_eq!(server.review(&pod())["allowed"], true);
    let mut missing = crate::support::process::command(crate::support::home::AGENTSECRETS);
    missing.args([
        "kubernetes",
        "webhook",
        "--sidecar",
        "/does/not/exist",
        "--certificate",
        "x",
        "--key",
        "y",
    ]);
    let outcome = crate::support::process::run(&mut missing);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("/does/not/exist"), "{outcome:?}");
}
