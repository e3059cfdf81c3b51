//! AgentSecrets in a cluster: the webhook that puts the sidecar into labelled pods, and refuses those that
//! could get around it.

pub mod authority;
pub mod dangers;
pub mod fragment;
pub mod inject;
pub mod keep;
pub mod review;
pub mod webhook;

#[cfg(test)]
mod inject_tests;
