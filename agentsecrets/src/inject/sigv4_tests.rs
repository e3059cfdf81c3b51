//! AWS's own test vectors, from botocore. Each request is parsed, evaluated, filled and signed by the
//! production code, and must get the expected signature.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::credentials::Credentials;
use crate::http::framing::Violation;
use crate::http::server::serve;
use crate::identity::Caller;
use crate::inject::placeholder::Placeholders;
use crate::inject::{BodyBudget, Outbound, apply};
use crate::policy::Policy;
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::NoCapabilityCheck;
use crate::policy::evaluate;
use crate::policy::evaluate::Decision;
use crate::policy::grant::Grant;
use crate::policy::signing::Signing;
use crate::redact::patterns::Patterns;
use crate::types::body::{Body, empty, full};
use crate::types::target::{Scheme as Transport, Target};
use crate::types::timeouts::Timeouts;

/// The vectors' time, 20150830T123600Z.
const NOW: Duration = Duration::from_secs(1_440_938_160);
const KEYS: [(&str, &str); 2] = [("ID", "AKIDEXAMPLE"), ("KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")];
const HOST: &str = "example.amazonaws.com";

/// Vectors that we reject before signing, with the reason.
const REFUSED: [(&str, &str); 9] = [
    ("get-header-value-multiline", "its line is a continuation"),
    ("get-relative", "it holds a '.' or '..' segment"),
    ("get-relative-relative", "it holds a '.' or '..' segment"),
    ("get-slash", "it holds '//'"),
    ("get-slash-dot-slash", "it holds a '.' or '..' segment"),
    ("get-slash-pointless-dot", "it holds a '.' or '..' segment"),
    ("get-slashes", "it holds '//'"),
    ("get-space", "the request is not HTTP/1.1"),
    ("get-utf8", "it holds a character that must be percent-encoded"),
];
/// Number of signed vectors: all others.
const SIGNED: usize = 25;

#[tokio::test]
async fn aws_test_vectors_are_signed_or_rejected() {
    let (mut refused, mut wrong, mut signed) = (BTreeMap::new(), Vec::new(), 0);
    for vector in vectors() {
        match authorization(&vector).await {
            Ok(made) if made == vector.authorization => signed += 1,
            Ok(made) => wrong.push((vector.name, made, vector.authorization)),
            Err(why) => drop(refused.insert(vector.name, why)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let names: Vec<&str> = refused.keys().map(String::as_str).collect();
    assert_eq!(names, REFUSED.map(|(name, _)| name), "{refused:#?}");
    for (name, why) in REFUSED {
        assert!(refused[name].contains(why), "{name}: {}", refused[name]);
    }
    assert_eq!(signed, SIGNED);
}

/// A request and its expected signature.
struct Vector {
    name: String,
    request: String,
    token: Option<String>,
    authorization: String,
}

fn vectors() -> Vec<Vector> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(package.join("../tests/credentials/python.txt")).unwrap();
    let wanted = list.lines().find(|line| line.starts_with("botocore==")).unwrap();
    let folder = package.join("../target/test-clients/signing-vectors");
    assert!(
        fs::read_to_string(folder.join("installed")).is_ok_and(|installed| installed == wanted),
        "AWS's test vectors are not here: run `cargo xtask test`, which brings them"
    );
    let mut requests = Vec::new();
    find(&folder.join("aws4_testsuite"), &mut requests);
    requests.sort();
    requests.iter().map(|request| vector(request)).collect()
}

fn find(folder: &Path, requests: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, requests);
        } else if path.extension().is_some_and(|extension| extension == "req") {
            requests.push(path);
        }
    }
}

fn vector(request: &Path) -> Vector {
    let read = |kind| fs::read_to_string(request.with_extension(kind)).unwrap();
    let canonical = read("creq");
    let token = canonical.lines().find_map(|line| line.strip_prefix("x-amz-security-token:"));
    Vector {
        name: request.file_stem().unwrap().to_str().unwrap().to_owned(),
        request: read("req"),
        token: token.map(str::to_owned),
        authorization: read("authz"),
    }
}

/// Returns the `Authorization` header that leaves, or the reason for a rejection.
async fn authorization(vector: &Vector) -> Result<String, String> {
    let (parts, body) = received(wire(vector)).await?.into_parts();
    let target = Target { scheme: Transport::Https, host: HOST.parse().unwrap(), port: 443 };
    let ask = AccessRequest {
        target: &target,
        method: &parts.method,
        path: parts.uri.path(),
        references: &[],
        websocket: false,
    };
    let grant = granted(vector, &ask)?;
    let keys = KEYS.iter().copied().chain(vector.token.as_deref().map(|token| ("TOKEN", token)));
    let keys = keys.map(|(name, value)| (name.parse().unwrap(), Arc::new(Secret::new(value.into()))));
    let credentials = Credentials::new(keys.collect());
    let applied = apply(
        Request::from_parts(parts, RequestBody::from(full(body))),
        target,
        &grant,
        &credentials,
        &Placeholders::new([]),
        "session".into(),
        Patterns::build([]),
    );
    let (Outbound { request, .. }, _) = applied.map_err(|rejection| rejection.message)?;
    let Some(Signing::Aws(aws)) = grant.signing().map(|signing| &**signing) else { panic!("unsigned") };
    let budget = BodyBudget::default();
    let now = UNIX_EPOCH + NOW;
    let signer = Signer { grant: &grant, credentials: &credentials, budget: &budget, now };
    let (mut parts, body) = request.into_parts();
    sign(&signer, aws, &mut parts, body).await.map_err(|rejection| rejection.message)?;
    Ok(parts.headers[AUTHORIZATION].to_str().unwrap().to_owned())
}

/// The request as a client sends it that signs the same headers with another key.
fn wire(vector: &Vector) -> Vec<u8> {
    let (head, body) = vector.request.split_once("\n\n").unwrap_or((&vector.request, ""));
    let (_, signed) = vector.authorization.split_once("SignedHeaders=").unwrap();
    let signed = signed.split(',').next().unwrap();
    let head = head.trim_end().replace('\n', "\r\n");
    format!(
        "{head}\r\nConnection: close\r\nContent-Length: {}\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=ANY/20150830/us-east-1/service/aws4_request, SignedHeaders={signed}, Signature=00\r\n\r\n{body}",
        body.len(),
    )
    .into_bytes()
}

/// Parses the request on a connection that carries `bytes`.
async fn received(bytes: Vec<u8>) -> Result<Request<Bytes>, String> {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    client.write_all(&bytes).await.unwrap();
    let (request, violation) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
    let (requested, violated) = (request.clone(), violation.clone());
    let answer = move |request: Request<Body>| {
        let requested = requested.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            *requested.lock().unwrap() = Some(Request::from_parts(parts, body));
            Response::new(empty())
        }
    };
    let violated = move |why: Violation| {
        *violated.lock().unwrap() = Some(why.message.to_owned());
    };
    let ended = serve(server, false, &Timeouts::default(), &CancellationToken::new(), answer, violated).await;
    if let Some(why) = violation.lock().unwrap().take() {
        return Err(why);
    }
    request.lock().unwrap().take().ok_or_else(|| format!("no request: {ended:?}"))
}

fn granted(vector: &Vector, ask: &AccessRequest<'_>) -> Result<Grant, String> {
    let token = if vector.token.is_some() { ", session_token: TOKEN" } else { "" };
    let policy = format!(
        "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: {HOST}\n        sign:\n          aws: {{ \
         access_key: ID, secret_key: KEY{token}, regions: [us-east-1], services: [service] }}\n"
    );
    let caller = Caller { agent: Some("coder".parse().unwrap()), ..Caller::for_test() };
    match evaluate(
        &Policy::parse(&policy, Path::new("policy.yaml")).unwrap(),
        &NoCapabilityCheck,
        &caller,
        ask,
    ) {
        Decision::Allow(grant) => Ok(grant),
        Decision::NeedsApproval(_) => Err("held".to_owned()),
        Decision::Deny(rejection) => Err(rejection.message),
    }
}
