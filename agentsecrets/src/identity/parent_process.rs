//! The program that started this one: for a command, which has no other caller.

use std::sync::Arc;

use super::executable::Hashes;
use super::system::{look, own_uid, parent_id};
use super::{Caller, CallerAttributes, IdentityError, Process};
use crate::types::name::AgentName;

/// The program that started this one, where the system lets us look at it; else this one.
pub async fn parent_process() -> Result<Process, IdentityError> {
    match our_parent().await {
        Ok(parent) => Ok(parent),
        Err(_) => look(std::process::id(), &Hashes::default()).await,
    }
}

/// The program that started this one, as an agent: one of our own user's, or nobody that we know. It says
/// which agent entry it means; whether that holds for it is the policy's to say. What it proves is who our
/// parent is, and not who holds the other ends of our pipes.
pub async fn parent_process_with(agent: Option<AgentName>) -> Result<Caller, IdentityError> {
    parent_caller(our_parent().await?, own_uid(), agent)
}

/// The same where `process` is known to have started us for the user `uid`.
pub fn parent_caller(process: Process, uid: u32, agent: Option<AgentName>) -> Result<Caller, IdentityError> {
    if process.uid != uid {
        return Err(IdentityError::OtherUser);
    }
    let process = Arc::new(process);
    Ok(Caller { process, agent, session: "".into(), is_ours: true, attributes: CallerAttributes::default() })
}

async fn our_parent() -> Result<Process, IdentityError> {
    let pid = parent_id()?;
    let parent = look(pid, &Hashes::default()).await?;
    // It may have ended before we looked, and another have got its id.
    if parent_id()? == pid { Ok(parent) } else { Err(IdentityError::Gone) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parent_process_matches_system_view() {
        let process = parent_process().await.unwrap();
        assert!([parent_id().unwrap(), std::process::id()].contains(&process.pid));
        assert_eq!(process.uid, own_uid());
    }
}
