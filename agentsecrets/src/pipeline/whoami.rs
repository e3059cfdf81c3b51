//! Tells an agent's program its own identity: the same facts from the kernel that decide which secrets it may
//! spend.

use std::sync::Arc;

use http::Response;

use super::context::Pipeline;
use super::stages::AdmittedRequest;
use crate::authz::whoami::{CallerReport, report};
use crate::identity::process_details::ProcessDetails;
use crate::identity::{Caller, IdentityError, Process};
use crate::pipeline::value_export::json;
use crate::policy::Policy;
use crate::types::body::Body;
use crate::types::rejection::{ErrorCode, Rejection};

/// The endpoint. The query parameter `pid` names a process in the caller's namespace; the default is its parent.
pub const PATH: &str = "/whoami";

impl Pipeline {
    /// Describes the caller's parent, or the named process if it is in the same cgroup.
    pub(super) async fn whoami(
        &self,
        admitted: AdmittedRequest,
        policy: Arc<Policy>,
    ) -> Result<Response<Body>, Rejection> {
        let denied = |why: String| Rejection::new(ErrorCode::CapabilityDenied, why);
        let AdmittedRequest { caller, parts, .. } = admitted;
        let query = parts.uri.query().unwrap_or_default();
        let named = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "pid");
        let named = named.map(|(_, pid)| pid.parse::<u32>()).transpose();
        let named = named.map_err(|_| Rejection::new(ErrorCode::BadRequest, "'pid' is not a number"))?;
        let capabilities = self.capabilities.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let trust = capabilities.trust().ok_or(IdentityError::Unsupported)?;
            let look = trust.look().ok_or(IdentityError::Unsupported)?;
            let cgroup = caller.process.cgroup.clone();
            let process = look.process(process_id(&caller, named, look)?)?;
            if process.cgroup != cgroup || process.uid != caller.process.uid {
                return Err(IdentityError::Elsewhere);
            }
            // One container has one image.
            let process = Process { image: caller.process.image.clone(), ..process };
            report(process, &caller, &policy, &capabilities, look, |above| above.cgroup == cgroup)
        });
        let asked: Result<CallerReport, IdentityError> =
            asked.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()));
        let known = asked.map_err(|error| denied(format!("this program cannot be looked at: {error}")))?;
        let known = serde_json::to_value(known);
        Ok(json(known.map_err(|error| Rejection::new(ErrorCode::BadRequest, error.to_string()))?))
    }
}

/// The id of the named process in the initial namespace.
fn process_id(caller: &Caller, named: Option<u32>, look: &dyn ProcessDetails) -> Result<u32, IdentityError> {
    match named {
        Some(pid) => look.inside(pid, &caller.process),
        None => {
            let parent = look.ancestry(&caller.process)?.into_iter().next();
            // The first process of a run is ours: a process that it started counts as having no parent.
            let parent = parent.filter(|parent| parent.cgroup == caller.process.cgroup);
            Ok(parent.map_or(caller.process.pid, |parent| parent.pid))
        }
    }
}
