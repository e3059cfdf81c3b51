//! Kubernetes: the webhook that injects the sidecar into labelled pods and rejects pods that could bypass it.

pub mod admission_review;
pub mod authority;
pub mod certificate_rotation;
pub mod inject;
pub mod pod_validation;
pub mod sidecar_template;
pub mod webhook;

#[cfg(test)]
mod inject_tests;
