//! The webhook's certificates look after themselves: two replicas and an API server that takes a change only of
//! what it gave last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use serde_json::{Value, json};

use super::{Webhook, file, rendered};
use crate::support::endpoints::{Body, Received};
use crate::support::process::until;
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
    /// With the objects that the chart makes.
    fn new() -> Self {
        let manifests = rendered(&file("helm/agentsecrets/ci/injector.yaml"));
        let of = |kind: &str| {
            let mut object = manifests.iter().find(|it| it["kind"] == kind).unwrap().clone();
            object["metadata"]["resourceVersion"] = "1".into();
            object
        };
        let objects: Objects = Arc::default();
        let given = [(SECRET, of("Secret")), (CONFIGURATION, of("MutatingWebhookConfiguration"))];
        objects.lock().unwrap().extend(given.map(|(path, object)| (path.to_owned(), object)));
        let kept = objects.clone();
        let api = Upstream::start(Options::plain().answering(move |asked| Some(answer(&kept, asked))));
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

    /// A replica, with the arguments that the chart gives it.
    fn replica(&self) -> Webhook {
        let manifests = rendered(&file("helm/agentsecrets/ci/injector.yaml"));
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

    /// What the API server trusts, as a file.
    fn trusted(&self) -> Option<PathBuf> {
        let objects = self.objects.lock().unwrap();
        let bundle = objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"].as_str()?;
        let path = self.folder.path().join("trusted.pem");
        std::fs::write(&path, STANDARD.decode(bundle).unwrap()).unwrap();
        Some(path)
    }

    /// Whether the API server can call the replica now.
    fn can_call(&self, replica: &Webhook) -> bool {
        self.trusted().is_some_and(|trusted| replica.ask(&trusted, "/readyz", &[]).0 == 200)
    }
}

/// What an API server says: the object, or a conflict to who changes another version than the last.
fn answer(objects: &Objects, asked: &Received) -> Response<Body> {
    let mut objects = objects.lock().unwrap();
    let path = asked.path.split('?').next().unwrap_or_default();
    let (code, said) = match (&*asked.method, objects.get(path).cloned()) {
        (_, None) => (404, failure(404, "NotFound")),
        ("GET", Some(object)) => (200, object),
        ("PUT", Some(object)) => {
            let mut new: Value = serde_json::from_str(&asked.body).unwrap();
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
    let body = Full::new(Bytes::from(said.to_string())).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn failure(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason })
}

#[test]
fn replicas_share_an_authority_that_the_api_server_is_told_of() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.replica(), cluster.replica());
    until("the API server can call it", || cluster.can_call(&one) && cluster.can_call(&two));
    let authority = cluster.data("ca.crt").unwrap();
    assert_eq!(std::fs::read_to_string(cluster.trusted().unwrap()).unwrap(), authority);
    assert!(cluster.data("ca.key").unwrap().contains("PRIVATE KEY"));
    drop((one, two));
    // A new one takes up what is kept.
    let three = cluster.replica();
    until("the API server can call it", || cluster.can_call(&three));
    assert_eq!(cluster.data("ca.crt").unwrap(), authority);
}

#[test]
fn an_authority_that_ends_soon_is_replaced_and_trusted_until_nothing_that_it_signed_is_shown() {
    let cluster = Cluster::new();
    let now = time::OffsetDateTime::now_utc();
    let old =
        agentsecrets::kubernetes::authority::Authority::generate(now - time::Duration::days(300)).unwrap();
    let data = [("ca.crt", &old.certificate), ("ca.key", &old.key)];
    let data: BTreeMap<_, _> = data.map(|(name, text)| (name, STANDARD.encode(text))).into();
    cluster.objects.lock().unwrap().get_mut(SECRET).unwrap()["data"] = json!(data);
    let (one, two) = (cluster.replica(), cluster.replica());
    until("the API server can call it", || cluster.can_call(&one) && cluster.can_call(&two));
    assert_ne!(cluster.data("ca.crt").unwrap(), old.certificate);
    let trusted = std::fs::read_to_string(cluster.trusted().unwrap()).unwrap();
    assert!(trusted.contains(&old.certificate) && trusted.contains(&cluster.data("ca.crt").unwrap()));
}

#[test]
fn without_an_api_server_there_is_no_certificate_and_so_no_answer() {
    let cluster = Cluster::new();
    cluster.objects.lock().unwrap().remove(SECRET);
    let replica = cluster.replica();
    // It asked, was told that there is none, and has come again.
    let asked = || cluster.api.received().iter().filter(|asked| asked.path.starts_with(SECRET)).count();
    until("it has asked twice", || asked() >= 2);
    // Whoever takes any certificate gets none.
    let any = cluster.folder.path().join("any.pem");
    std::fs::write(&any, crate::support::certificate::Authority::new().pem()).unwrap();
    let (status, said) = replica.ask(&any, "/readyz", &["-k"]);
    assert!(status == 0 && said.contains("curl: (35)"), "{status} {said}");
}
