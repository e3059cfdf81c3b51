//! The webhook, asked as the API server asks: what it puts into a pod is what the chart says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{NAME, Webhook, file, rendered};
use crate::support::certificate::Authority;
use crate::support::process::until;

struct Asked {
    folder: tempfile::TempDir,
    webhook: Webhook,
}

impl Asked {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (certificate, key) = authority.pem_leaf(&[NAME.to_owned()]);
        let manifests = rendered(&file("helm/agentsecrets/ci/injector.yaml"));
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
        self.webhook.ask(&self.folder.path().join("ca.pem"), "/inject?timeout=10s", &more)
    }

    fn review(&self, pod: &Value) -> Value {
        let (status, body) = self.post(&question(pod).to_string());
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&"admission.k8s.io/v1".into(), &"AdmissionReview".into())
        );
        assert_eq!(answer["response"]["uid"], question(pod)["request"]["uid"]);
        answer["response"].clone()
    }
}

/// A question as the API server writes it for a pod of a Deployment.
fn question(pod: &Value) -> Value {
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

/// The pod after the answer's patch.
fn patched(pod: &Value, response: &Value) -> Value {
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[test]
fn a_pod_gets_the_sidecar_once_and_keeps_what_the_webhook_does_not_know() {
    let asked = Asked::new();
    let pod = pod();
    let response = asked.review(&pod);
    assert_eq!((&response["allowed"], &response["patchType"]), (&true.into(), &"JSONPatch".into()));
    let guarded = patched(&pod, &response);
    let spec = &guarded["spec"];
    assert_eq!(spec["initContainers"][0]["name"], "agentsecrets");
    assert_eq!(spec["initContainers"][0]["restartPolicy"], "Always");
    assert_eq!(spec["containers"][0]["aFieldOfALaterRelease"]["x"], 1);
    let env = spec["containers"][0]["env"].as_array().unwrap();
    assert!(env.contains(&json!({ "name": "STRIPE_KEY", "value": "AS_SECRET_STRIPE_KEY" })), "{env:?}");
    // It is asked again when another webhook changed the pod.
    let again = asked.review(&guarded);
    assert_eq!((&again["allowed"], again.get("patch")), (&true.into(), None), "{again}");
}

#[test]
fn an_unsafe_pod_is_refused_and_the_person_reads_why() {
    let asked = Asked::new();
    let mut bad = pod();
    bad["spec"]["containers"][0]["envFrom"] = json!([{ "secretRef": { "name": "agent-secrets" } }]);
    bad["spec"]["hostPID"] = true.into();
    let response = asked.review(&bad);
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&false.into(), &403.into()));
    let why = response["status"]["message"].as_str().unwrap();
    assert!(why.contains("hostPID") && why.contains("Secret agent-secrets"), "{why}");
}

#[test]
fn what_is_no_question_is_an_error_that_the_failure_policy_decides_about() {
    let asked = Asked::new();
    let mut configmap = question(&json!({ "kind": "ConfigMap", "apiVersion": "v1", "data": {} }));
    configmap["request"]["kind"]["kind"] = "ConfigMap".into();
    let mut nothing = question(&pod());
    nothing["request"] = Value::Null;
    for body in ["", "{", "[]", &nothing.to_string()] {
        assert_eq!(asked.post(body).0, 400, "{body}");
    }
    // What is no pod is no question either, or one that is answered with no.
    let (status, body) = asked.post(&configmap.to_string());
    let response: Value = serde_json::from_str(&body).unwrap_or_default();
    let is_refused = status == 200 && response["response"]["allowed"] == false;
    assert!(status == 400 || is_refused, "{status} {body}");
    let huge = format!("{{\"x\":\"{}\"}}", "a".repeat(9 << 20));
    assert_eq!(asked.post(&huge).0, 400);
    let authority = asked.folder.path().join("ca.pem");
    assert_eq!(asked.webhook.ask(&authority, "/healthz", &[]).0, 200);
    assert_eq!(asked.webhook.ask(&authority, "/readyz", &[]).0, 200);
    assert_eq!(asked.webhook.ask(&authority, "/inject", &[]).0, 404);
}

#[test]
fn a_file_of_the_sidecar_that_cannot_be_read_is_told_and_what_was_before_stays() {
    let asked = Asked::new();
    let authority = asked.folder.path().join("ca.pem");
    std::fs::write(asked.folder.path().join("s"), "initContainers: [").unwrap();
    until("it is told", || asked.webhook.ask(&authority, "/readyz", &[]).0 == 503);
    assert_eq!(asked.review(&pod())["allowed"], true);
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
    let outcome = crate::support::process::finish(&mut missing);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("/does/not/exist"), "{outcome:?}");
}
