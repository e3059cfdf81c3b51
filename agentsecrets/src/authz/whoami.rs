//! The facts that a request of a program would be judged by. They show why the program is trusted, or why
//! not.

use serde::{Deserialize, Serialize};

use super::Capabilities;
use crate::identity::process_details::{Ancestor, ProcessDetails};
use crate::identity::{Caller, CallerAttributes, IdentityError, Process, ProcessFacts};
use crate::policy::Policy;
use crate::types::presented::PresentedCredentials;

/// A program, as we know it. To the program itself nothing of this is a secret: it names no rule, no secret
/// but those of its own pins, and no other agent.
#[derive(Debug, Serialize, Deserialize)]
pub struct CallerReport {
    /// The kernel's facts about the process.
    #[serde(flatten)]
    pub process: ProcessFacts,
    /// The processes above it, the nearest first.
    pub ancestry: Vec<Ancestor>,
    /// The agent entry that it acts under.
    pub agent: Option<String>,
    /// Why there is none.
    pub no_agent: Option<String>,
    /// Whether a pin holds for it.
    pub trusted: bool,
    /// Why, or why not.
    pub trust: String,
    /// The session that it is in.
    pub session: Option<String>,
    /// Every live session that holds for it.
    pub sessions: Vec<String>,
}

/// The facts of `process`, which would call as `caller` without a token. Ancestors are listed if they are
/// `within`.
///
/// # Errors
/// If the process cannot be inspected.
pub fn report(
    process: Process,
    caller: &Caller,
    policy: &Policy,
    capabilities: &Capabilities,
    look: &dyn ProcessDetails,
    within: impl Fn(&Ancestor) -> bool,
) -> Result<CallerReport, IdentityError> {
    let ancestry = look.ancestry(&process)?.into_iter().take_while(within).collect();
    let (pod, spiffe) = (caller.attributes.pod.clone(), caller.attributes.spiffe.clone());
    let attributes =
        CallerAttributes { pod, spiffe, asked_by: caller.attributes.asked_by, ..CallerAttributes::default() };
    let caller = Caller { process: process.into(), attributes, ..caller.clone() };
    let admitted = capabilities.admit(&Ok(caller.clone()), &PresentedCredentials::default());
    let (caller, refused) = match admitted {
        Ok(admitted) => (admitted.caller, None),
        Err(refused) => (caller, Some(refused.refusal)),
    };
    let trust = capabilities.trust().map(|trust| trust.verdict(&caller));
    let agent = refused.map_or_else(|| policy.agent_for(&caller), Err);
    Ok(CallerReport {
        process: (&caller).into(),
        ancestry,
        agent: agent.as_ref().ok().map(|agent| agent.name().to_string()),
        no_agent: agent.err().map(|refusal| refusal.message),
        trusted: caller.attributes.trusted,
        trust: trust.map_or_else(String::new, |attributes| attributes.reason()),
        sessions: caller.attributes.sessions.iter().map(ToString::to_string).collect(),
        session: Some(caller.session.to_string()).filter(|session| !session.is_empty()),
    })
}
