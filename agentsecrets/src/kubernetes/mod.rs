//! AgentSecrets in a cluster: the webhook that puts the sidecar into labelled pods, and refuses those that
//! could get around it.

pub mod admission_review;
pub mod authority;
pub mod certificate_rotation;
pub mod inject;
pub mod pod_validation;
pub mod sidecar_template;
pub mod webhook;

#[cfg(test)]
mod inject_tests;
