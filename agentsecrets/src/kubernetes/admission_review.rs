//! One question of the API server's, and the answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionRequest, AdmissionReview, Operation};
use serde_json::{Value, json};

use super::inject::inject;
use crate::kubernetes::pod_validation;
use crate::kubernetes::sidecar_template::Fragment;

/// What cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum NoReview {
    /// It is not JSON, or not of this kind.
    #[error("this is no AdmissionReview of a pod: {0}")]
    Json(#[from] serde_json::Error),
    /// It asks nothing.
    #[error("this AdmissionReview has no request")]
    Empty,
}

/// What is said of a pod.
enum Verdict {
    /// It may be, as it is.
    Allowed,
    /// It may be, changed so.
    Changed(json_patch::Patch),
    /// It must not be.
    Refused(Vec<String>),
}

/// Answers the review in `body`: JSON in, JSON out.
///
/// # Errors
/// When it is no review of a pod: the API server then does what `failurePolicy` says.
pub fn answer(body: &[u8], fragment: &Fragment) -> Result<Vec<u8>, NoReview> {
    let review: AdmissionReview<Pod> = serde_json::from_slice(body)?;
    let request = review.request.ok_or(NoReview::Empty)?;
    let verdict = judge(&request, fragment)?;
    let mut response = json!({ "uid": request.uid, "allowed": !matches!(verdict, Verdict::Refused(_)) });
    match verdict {
        Verdict::Allowed => {}
        Verdict::Changed(patch) => {
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(serde_json::to_vec(&patch)?).into();
        }
        Verdict::Refused(reasons) => response["status"] = refused(&reasons),
    }
    let review =
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
    Ok(serde_json::to_vec(&review)?)
}

fn refused(reasons: &[String]) -> Value {
    let message = format!("AgentSecrets cannot guard this pod: {}", reasons.join("; "));
    json!({ "status": "Failure", "code": 403, "reason": "Forbidden", "message": message })
}

fn judge(request: &AdmissionRequest<Pod>, fragment: &Fragment) -> Result<Verdict, NoReview> {
    let Some(pod) = &request.object else {
        return Ok(Verdict::Refused(vec!["the question holds no pod".to_owned()]));
    };
    let is_new =
        request.operation == Operation::Create && request.sub_resource.as_ref().is_none_or(String::is_empty);
    if !is_new {
        // A pod that runs takes no sidecar any more, but may be given containers.
        let reasons = pod_validation::of_pod(pod, fragment);
        return Ok(if reasons.is_empty() { Verdict::Allowed } else { Verdict::Refused(reasons) });
    }
    let guarded = match inject(pod.clone(), fragment) {
        Ok(guarded) => guarded,
        Err(reasons) => return Ok(Verdict::Refused(reasons)),
    };
    let patch = json_patch::diff(&serde_json::to_value(pod)?, &serde_json::to_value(&guarded)?);
    Ok(if patch.0.is_empty() { Verdict::Allowed } else { Verdict::Changed(patch) })
}
