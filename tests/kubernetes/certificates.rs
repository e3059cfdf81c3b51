//! The webhook manages its own certificates: two replicas, and an API server with optimistic concurrency.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use serde_json::{Value, json};

use super::{Webhook, render, workspace_file};
use crate::support::endpoints::{Body, ReceivedRequest};
use crate::support::process::wait_until;
use crate::support::upstream::{Options, Upstream};

const SECRET: &str = "/api/v1/namespaces/agents/secrets/demo-agentsecrets-injector";
const CONFIGURATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/demo-agentsecrets-injector-agents";

type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

struct Cluster {
    folder: tempfile::TempDir,
    objects: Objects,
    api: Upstream,
}

impl Cluster {
    /// With the objects of the chart.
    fn new() -> Self {
        let manifests = render(&workspace_file("helm/agentsecrets/ci/injector.yaml"));
        let of = |kind: &str| {
            let mut object = manifests.iter().find(|it| it["kind"] == kind).unwrap().clone();
            object["metadata"]["resourceVersion"] = "1".into();
            object
        };
        let objects: Objects = Arc::default();
        let names = [(SECRET, of("Secret")), (CONFIGURATION, of("MutatingWebhookConfiguration"))];
        objects.lock().unwrap().extend(names.map(|(path, object)| (path.to_owned(), object)));
        let store = objects.clone();
        let api =
            Upstream::start(Options::plain().with_handler(move |request| Some(respond(&store, request))));
        let folder = tempfile::tempdir().unwrap();
        let sidecar = manifests.iter().find(|it| it["kind"] == "ConfigMap").unwrap();
        let server = format!("http://127.0.0.1:{}", api.port());
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": server } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        std::fs::write(folder.path().join("s"), sidecar["data"]["sidecar.yaml"].as_str().unwrap()).unwrap();
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Self { folder, objects, api }
    }

    /// A replica with the chart's arguments.
    fn replica(&self) -> Webhook {
        let manifests = render(&workspace_file("helm/agentsecrets/ci/injector.yaml"));
        let deployment = manifests.iter().find(|it| it["kind"] == "Deployment").unwrap();
        let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        let arguments = arguments.as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let arguments: Vec<_> =
            arguments.filter(|word| word.starts_with("--") && !word.starts_with("--sidecar")).collect();
        Webhook::start(|webhook| {
            webhook.arg("--sidecar").arg(self.folder.path().join("s")).args(&arguments);
            webhook.env("POD_NAMESPACE", "agents").env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        })
    }

    fn data(&self, key: &str) -> Option<String> {
        let objects = self.objects.lock().unwrap();
        let text = objects[SECRET]["data"][key].as_str()?;
        String::from_utf8(STANDARD.decode(text).unwrap()).ok()
    }

    /// The CA bundle that the API server trusts, as a file.
    fn trusted(&self) -> Option<PathBuf> {
        let objects = self.objects.lock().unwrap();
        let bundle = objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"].as_str()?;
        let path = self.folder.path().join("trusted.pem");
        std::fs::write(&path, STANDARD.decode(bundle).unwrap()).unwrap();
        Some(path)
    }

    /// Whether the API server can call the replica now.
    fn can_call(&self, replica: &Webhook) -> bool {
        self.trusted().is_some_and(|trusted| replica.post(&trusted, "/readyz", &[]).0 == 200)
    }
}

/// The API server's response: the object, or a conflict for a stale version.
fn respond(objects: &Objects, request: &ReceivedRequest) -> Response<Body> {
    let mut objects = objects.lock().unwrap();
    let path = request.path.split('?').next().unwrap_or_default();
    let (code, output) = match (&*request.method, objects.get(path).cloned()) {
        (_, None) => (404, failure(404, "NotFound")),
        ("GET", Some(object)) => (200, object),
        ("PUT", Some(object)) => {
            let mut new: Value = serde_json::from_str(&request.body).unwrap();
            let version = &object["metadata"]["resourceVersion"];
            if new["metadata"]["resourceVersion"] == *version {
                let next: u64 = version.as_str().unwrap().parse().unwrap();
                new["metadata"]["resourceVersion"] = (next + 1).to_string().into();
                objects.insert(path.to_owned(), new.clone());
                (200, new)
            } else {
                (409, failure(409, "Conflict"))
            }
        }
        _ => (405, failure(405, "MethodNotAllowed")),
    };
    let body = Full::new(Bytes::from(output.to_string())).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn failure(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason })
}

#[test]
fn webhook_replicas_share_ca() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.replica(), cluster.replica());
    wait_until("the API server can call it", || cluster.can_call(&one) && cluster.can_call(&two));
    let authority = cluster.data("ca.crt").unwrap();
    assert_eq!(std::fs::read_to_string(cluster.trusted().unwrap()).unwrap(), authority);
    assert!(cluster.data("ca.key").unwrap().contains("PRIVATE KEY"));
    drop((one, two));
    // A new replica takes over the stored state.
    let three = cluster.replica();
    wait_until("the API server can call it", || cluster.can_call(&three));
    assert_eq!(cluster.data("ca.crt").unwrap(), authority);
}

#[test]
fn expiring_ca_is_rotated() {
    let cluster = Cluster::new();
    let now = time::OffsetDateTime::now_utc();
    let old =
        agentsecrets::kubernetes::authority::WebhookAuthority::generate(now - time::Duration::days(300))
            .unwrap();
    let data = [("ca.crt", &old.certificate_pem), ("ca.key", &old.key_pem)];
    let data: BTreeMap<_, _> = data.map(|(name, text)| (name, STANDARD.encode(text))).into();
    cluster.objects.lock().unwrap().get_mut(SECRET).unwrap()["data"] = json!(data);
    let (one, two) = (cluster.replica(), cluster.replica());
    wait_until("the API server can call it", || cluster.can_call(&one) && cluster.can_call(&two));
    assert_ne!(cluster.data("ca.crt").unwrap(), old.certificate_pem);
    let trusted = std::fs::read_to_string(cluster.trusted().unwrap()).unwrap();
    assert!(trusted.contains(&old.certificate_pem) && trusted.contains(&cluster.data("ca.crt").unwrap()));
}

#[test]
fn webhook_without_api_server_serves_nothing() {
    let cluster = Cluster::new();
    cluster.objects.lock().unwrap().remove(SECRET);
    let replica = cluster.replica();
    // It queried the API server, got "not found", and tried again.
    let request = || cluster.api.received().iter().filter(|request| request.path.starts_with(SECRET)).count();
    wait_until("it has asked twice", || request() >= 2);
    // Without a certificate even a client that skips verification gets no connection.
    let any = cluster.folder.path().join("any.pem");
    std::fs::write(&any, crate::support::certificate::Authority::new().pem()).unwrap();
    let (status, output) = replica.post(&any, "/readyz", &["-k"]);
    assert!(status == 0 && output.contains("curl: (35)"), "{status} {output}");
}
