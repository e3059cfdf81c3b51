//! What an agent's program is told of itself, by the one who judges it: the same kernel's view that decides what
//! it may spend.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::Pipeline;
use crate::authz::whoami::{Known, known};
use crate::identity::process_details::Look;
use crate::identity::{Caller, IdentityError, Process};
use crate::pipeline::value_export::{HOST, json};
use crate::policy::Policy;
use crate::types::body::Body;
use crate::types::rejection::{ErrorCode, Rejection};

/// Where it is asked for; `pid` names a process in the namespace of who asks, else it is the parent's.
pub const PATH: &str = "/whoami";

impl Pipeline {
    /// Tells `caller` of its parent, or of the process that it names, if that is in the same cgroup.
    pub(super) async fn tell_who(
        &self,
        caller: &Caller,
        policy: Arc<Policy>,
        parts: &Parts,
    ) -> Result<Response<Body>, Rejection> {
        let denied = |why: String| Rejection::new(ErrorCode::CapabilityDenied, HOST, why);
        let query = parts.uri.query().unwrap_or_default();
        let named = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "pid");
        let named = named.map(|(_, pid)| pid.parse::<u32>()).transpose();
        let named =
            named.map_err(|_| Rejection::new(ErrorCode::BadRequest, HOST, "'pid' is not a number"))?;
        let (capabilities, caller) = (self.capabilities.clone(), caller.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let trust = capabilities.trust().ok_or(IdentityError::Unsupported)?;
            let look = trust.look().ok_or(IdentityError::Unsupported)?;
            let cgroup = caller.process.cgroup.clone();
            let process = look.process(subject(&caller, named, look)?)?;
            if process.cgroup != cgroup || process.uid != caller.process.uid {
                return Err(IdentityError::Elsewhere);
            }
            // One container has one image.
            let process = Process { image: caller.process.image.clone(), ..process };
            known(process, &caller, &policy, &capabilities, look, |above| above.cgroup == cgroup)
        });
        let asked: Result<Known, IdentityError> =
            asked.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()));
        let known = asked.map_err(|error| denied(format!("this program cannot be looked at: {error}")))?;
        let known = serde_json::to_value(known);
        Ok(json(known.map_err(|error| Rejection::new(ErrorCode::BadRequest, HOST, error.to_string()))?))
    }
}

/// The process that is meant, by its id in the initial namespace.
fn subject(caller: &Caller, named: Option<u32>, look: &dyn Look) -> Result<u32, IdentityError> {
    match named {
        Some(pid) => look.inside(pid, &caller.process),
        None => {
            let parent = look.ancestry(&caller.process)?.into_iter().next();
            // The first process of a run is ours, and whoever it started has no other parent to speak of.
            let parent = parent.filter(|parent| parent.cgroup == caller.process.cgroup);
            Ok(parent.map_or(caller.process.pid, |parent| parent.pid))
        }
    }
}
