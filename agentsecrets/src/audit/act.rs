//! What a person does to us, as the log is told of it.

use std::sync::Arc;

use super::record::Status;
use crate::base::name::{Environment, SecretName};
use crate::identity::Process;

/// What a person did, or was kept from doing.
#[derive(Debug)]
pub struct Act<'a> {
    /// The environment that was meant.
    pub environment: &'a Environment,
    /// A verb, such as `secrets set`.
    pub act: &'a str,
    /// The secrets that it was done to.
    pub secrets: &'a [SecretName],
    /// The process that asked for it, where it is known.
    pub process: Option<Arc<Process>>,
    /// Whether it was done.
    pub status: Status,
    /// Why not.
    pub reason: Option<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}
