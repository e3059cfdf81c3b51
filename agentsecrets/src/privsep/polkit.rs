//! Presence by polkit: a dialog of the person's desktop, or polkit's own at the terminal, asks for the login or for
//! whatever the system takes in its place, such as a finger. The question goes to an agent that the person's session
//! registered, and a program of the person's can be that; the proof does not come from it, but from polkit's helper.

use std::collections::HashMap;
use std::time::Duration;

use zbus::blocking::connection::Builder;
use zbus_polkit::policykit1::{
    AuthorityProxyBlocking, AuthorizationResult, CheckAuthorizationFlags, ImplicitAuthorization, Subject,
};

use super::peer::Peer;
use crate::types::failure::{Exit, Failure};

/// What polkit is asked for, by the name in `deploy/polkit`.
const ACTION: &str = "dev.agentsecrets.act";
/// The longest act that a dialog shows whole, in characters.
const LONGEST_SHOWN: usize = 300;
/// How long polkit may take for what it asks nobody about.
const AT_ONCE: Duration = Duration::from_secs(10);
/// What an answer says of a yes that was, or will be, remembered.
const REMEMBERED: [&str; 2] =
    ["polkit.retains_authorization_after_challenge", "polkit.temporary_authorization_id"];

/// What came of asking.
#[derive(Debug)]
pub enum Answer {
    /// The person proved to be there.
    Present,
    /// Nobody could be asked, and why.
    Nobody(String),
}

/// Has polkit ask the person behind `peer` about `act`, a line that is free of what deceives, for at most `patience`.
/// A no is a failure, and so is a yes that took no asking.
pub fn ask(peer: &Peer, act: &str, patience: Duration) -> Result<Answer, Failure> {
    // Some dialogs read markup in it.
    if act.chars().count() > LONGEST_SHOWN || act.contains(['<', '&']) {
        return Ok(Answer::Nobody("a dialog might not show you this whole, as it is".into()));
    }
    let process = &peer.process;
    let subject = Subject::new_for_owner(process.pid, Some(process.start_time), Some(peer.uid.as_raw()));
    let nobody = |error: &dyn std::fmt::Display| Ok(Answer::Nobody(error.to_string()));
    let (subject, authority) = match (subject, authority(patience)) {
        (Ok(subject), Ok(authority)) => (subject, authority),
        (Err(error), _) => return nobody(&error),
        (_, Err(error)) => return nobody(&error),
    };
    let details = HashMap::from([("act", act)]);
    let check = |flags| authority.check_authorization(&subject, ACTION, &details, flags, "");
    // What would it say to somebody who is not asked? A yes of that kind is had by any program of the person's.
    match check(Default::default()) {
        Ok(unasked) => must_ask(&unasked)?,
        Err(error) => return nobody(&error),
    }
    let asked = check(CheckAuthorizationFlags::AllowUserInteraction.into())
        .map_err(|error| denied(format!("polkit has no answer: {error}")))?;
    if is_remembered(&asked) {
        return Err(remembers());
    }
    match asked {
        AuthorizationResult { is_authorized: true, .. } => Ok(Answer::Present),
        AuthorizationResult { is_challenge: true, .. } => {
            nobody(&"no agent of polkit's runs in your session or at your terminal")
        }
        _ => Err(denied("polkit asked, and you did not prove to be there")),
    }
}

/// Whether polkit is there and asks for each act, or why not.
pub fn is_sound() -> Result<(), String> {
    let authority = authority(AT_ONCE).map_err(|error| error.to_string())?;
    let actions = authority.enumerate_actions("C").map_err(|error| error.to_string())?;
    let action = actions.into_iter().find(|action| action.action_id == ACTION);
    let action = action.ok_or_else(|| format!("polkit does not know {ACTION}"))?;
    let asks = |implicit| {
        use ImplicitAuthorization::{AdministratorAuthenticationRequired, AuthenticationRequired};
        matches!(implicit, AuthenticationRequired | AdministratorAuthenticationRequired)
    };
    if [action.implicit_any, action.implicit_inactive, action.implicit_active].into_iter().all(asks) {
        Ok(())
    } else {
        Err(format!("polkit is not set to ask for each {ACTION}"))
    }
}

fn authority(patience: Duration) -> zbus::Result<AuthorityProxyBlocking<'static>> {
    let bus = Builder::system()?.method_timeout(patience).build()?;
    AuthorityProxyBlocking::builder(&bus).cache_properties(zbus::proxy::CacheProperties::No).build()
}

/// Fails unless polkit would ask now, and afterwards remember nothing.
fn must_ask(unasked: &AuthorizationResult) -> Result<(), Failure> {
    if is_remembered(unasked) {
        return Err(remembers());
    }
    if unasked.is_authorized {
        return Err(denied("polkit lets this pass without asking you, which proves nobody's presence")
            .hint(format!("root: no rule of polkit's may say yes to {ACTION}")));
    }
    if unasked.is_challenge { Ok(()) } else { Err(denied("polkit's rules refuse this")) }
}

fn is_remembered(answer: &AuthorizationResult) -> bool {
    REMEMBERED.iter().any(|detail| answer.details.contains_key(*detail))
}

fn remembers() -> Failure {
    denied("polkit is set to remember a yes, which any program of yours could use")
        .hint(format!("root: {ACTION} must be auth_self or auth_admin, without _keep"))
}

fn denied(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Denied, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(is_authorized: bool, is_challenge: bool, detail: Option<&str>) -> AuthorizationResult {
        let details = detail.into_iter().map(|name| (name.to_owned(), "1".to_owned())).collect();
        AuthorizationResult { is_authorized, is_challenge, details }
    }

    #[test]
    fn only_what_would_be_asked_and_not_remembered_is_asked() {
        assert!(must_ask(&answer(false, true, None)).is_ok());
        let refused = |answer| must_ask(&answer).unwrap_err().what().to_owned();
        assert!(refused(answer(true, false, None)).contains("without asking you"));
        assert!(refused(answer(false, false, None)).contains("rules refuse"));
        for detail in REMEMBERED {
            assert!(refused(answer(false, true, Some(detail))).contains("remember"));
            assert!(refused(answer(true, false, Some(detail))).contains("remember"));
        }
    }
}
