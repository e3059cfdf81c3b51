//! Answers the API server's admission reviews of pods.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionRequest, AdmissionReview, Operation};
use serde_json::{Value, json};

use super::inject::inject;
use crate::kubernetes::pod_validation;
use crate::kubernetes::sidecar_template::SidecarTemplate;

/// Reasons that a review cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The body is not an AdmissionReview of a pod.
    #[error("this is no AdmissionReview of a pod: {0}")]
    Json(#[from] serde_json::Error),
    /// The review has no request.
    #[error("this AdmissionReview has no request")]
    MissingRequest,
}

enum ReviewVerdict {
    Allowed,
    /// The pod is allowed with this change.
    Changed(json_patch::Patch),
    Denied(Vec<String>),
}

/// Answers the AdmissionReview in `body`, JSON in and JSON out.
///
/// # Errors ¶| If `body` is not a review of a pod; the API server then applies its `failurePolicy`.
pub fn review(body: &[u8], template: &SidecarTemplate) -> Result<Vec<u8>, ReviewError> {
    let review: AdmissionReview<Pod> = serde_json::from_slice(body)?;
    let request = review.request.ok_or(ReviewError::MissingRequest)?;
    let verdict = evaluate(&request, template)?;
    let mut response = json!({ "uid": request.uid, "allowed": !matches!(verdict, ReviewVerdict::Denied(_)) });
    match verdict {
        ReviewVerdict::Allowed => {}
        ReviewVerdict::Changed(patch) => {
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(serde_json::to_vec(&patch)?).into();
        }
        ReviewVerdict::Denied(reasons) => response["status"] = denied_status(&reasons),
    }
    let review =
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
    Ok(serde_json::to_vec(&review)?)
}

fn denied_status(reasons: &[String]) -> Value {
    let message = format!("AgentSecrets cannot guard this pod: {}", reasons.join("; "));
    json!({ "status": "Failure", "code": 403, "reason": "Forbidden", "message": message })
}

fn evaluate(
    request: &AdmissionRequest<Pod>,
    template: &SidecarTemplate,
) -> Result<ReviewVerdict, ReviewError> {
    let Some(pod) = &request.object else {
        return Ok(ReviewVerdict::Denied(vec!["the review has no pod".to_owned()]));
    };
    let is_new =
        request.operation == Operation::Create && request.sub_resource.as_ref().is_none_or(String::is_empty);
    if !is_new {
        // A running pod cannot be given a sidecar, but it can be given containers.
        let reasons = pod_validation::validate_pod(pod, template);
        return Ok(if reasons.is_empty() { ReviewVerdict::Allowed } else { ReviewVerdict::Denied(reasons) });
    }
    let injected = match inject(pod.clone(), template) {
        Ok(injected) => injected,
        Err(reasons) => return Ok(ReviewVerdict::Denied(reasons)),
    };
    let patch = json_patch::diff(&serde_json::to_value(pod)?, &serde_json::to_value(&injected)?);
    Ok(if patch.0.is_empty() { ReviewVerdict::Allowed } else { ReviewVerdict::Changed(patch) })
}
