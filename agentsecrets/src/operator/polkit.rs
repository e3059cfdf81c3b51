//! Confirmation by polkit: a dialog of the desktop, or polkit's agent at the terminal, asks for the login or
//! its substitute, such as a fingerprint. The authentication agent may be any program of the person's
//! session; the proof comes not from it but from polkit's helper.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, pipe2};
use zbus::blocking::connection::Builder;
use zbus_polkit::policykit1::{
    AuthorityProxyBlocking, AuthorizationResult, CheckAuthorizationFlags, ImplicitAuthorization, Subject,
};

use super::peer::Peer;
use crate::sys::process;
use crate::types::failure::{Exit, Failure};

/// The polkit action, defined in `deploy/polkit`.
const ACTION_ID: &str = "dev.agentsecrets.act";
/// Maximum length of an act that a dialog shows whole, in characters.
const MAX_MESSAGE_LENGTH: usize = 300;
/// Time limit for queries without interaction.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// Details of an authorisation that polkit remembered or will remember.
const RETAINED_DETAILS: [&str; 2] =
    ["polkit.retains_authorization_after_challenge", "polkit.temporary_authorization_id"];
const PKTTYAGENT: &str = "/usr/bin/pkttyagent";
const DESKTOP_VARIABLES: [&str; 2] = ["DISPLAY", "WAYLAND_DISPLAY"];
const REGISTRATION_TIMEOUT_MS: u16 = 5000;

#[derive(Debug)]
pub(crate) enum PolkitOutcome {
    /// The person confirmed.
    Confirmed,
    /// Nobody could be asked; the reason.
    Unavailable(String),
}

/// Has polkit ask the person behind `peer` about `act`, a line without deceptive characters. A refusal is an
/// error, and so is an authorisation without interaction.
pub(crate) fn check_authorization(
    peer: &Peer,
    act: &str,
    timeout: Duration,
) -> Result<PolkitOutcome, Failure> {
    // Some dialogs interpret markup.
    if act.chars().count() > MAX_MESSAGE_LENGTH || act.contains(['<', '&']) {
        return Ok(PolkitOutcome::Unavailable("a dialog might not show you this whole, as it is".into()));
    }
    let process = &peer.process;
    let subject = Subject::new_for_owner(process.pid, Some(process.start_time), Some(peer.uid.as_raw()));
    let unavailable = |error: &dyn std::fmt::Display| Ok(PolkitOutcome::Unavailable(error.to_string()));
    let (subject, authority) = match (subject, authority(timeout)) {
        (Ok(subject), Ok(authority)) => (subject, authority),
        (Err(error), _) => return unavailable(&error),
        (_, Err(error)) => return unavailable(&error),
    };
    let details = HashMap::from([("act", act)]);
    let check = |flags| authority.check_authorization(&subject, ACTION_ID, &details, flags, "");
    // An authorisation without interaction is open to every program of the person.
    match check(Default::default()) {
        Ok(without_interaction) => require_challenge(&without_interaction)?,
        Err(error) => return unavailable(&error),
    }
    let result = check(CheckAuthorizationFlags::AllowUserInteraction.into())
        .map_err(|error| denied(format!("polkit has no answer: {error}")))?;
    if is_retained(&result) {
        return Err(retained_error());
    }
    match result {
        AuthorizationResult { is_authorized: true, .. } => Ok(PolkitOutcome::Confirmed),
        AuthorizationResult { is_challenge: true, .. } => {
            unavailable(&"no agent of polkit's runs in your session or at your terminal")
        }
        _ => Err(denied("polkit asked, and you did not confirm")),
    }
}

/// Checks that polkit runs and asks for each act.
pub(crate) fn check_configuration() -> Result<(), String> {
    let authority = authority(STATUS_TIMEOUT).map_err(|error| error.to_string())?;
    let actions = authority.enumerate_actions("C").map_err(|error| error.to_string())?;
    let action = actions.into_iter().find(|action| action.action_id == ACTION_ID);
    let action = action.ok_or_else(|| format!("polkit does not know {ACTION_ID}"))?;
    let asks = |implicit| {
        use ImplicitAuthorization::{AdministratorAuthenticationRequired, AuthenticationRequired};
        matches!(implicit, AuthenticationRequired | AdministratorAuthenticationRequired)
    };
    if [action.implicit_any, action.implicit_inactive, action.implicit_active].into_iter().all(asks) {
        Ok(())
    } else {
        Err(format!("polkit is not set to ask for each {ACTION_ID}"))
    }
}

fn authority(timeout: Duration) -> zbus::Result<AuthorityProxyBlocking<'static>> {
    let bus = Builder::system()?.method_timeout(timeout).build()?;
    AuthorityProxyBlocking::builder(&bus).cache_properties(zbus::proxy::CacheProperties::No).build()
}

/// Fails unless polkit would ask now and remember nothing.
fn require_challenge(without_interaction: &AuthorizationResult) -> Result<(), Failure> {
    if is_retained(without_interaction) {
        return Err(retained_error());
    }
    if without_interaction.is_authorized {
        return Err(denied("polkit allows this without asking you, which confirms nothing")
            .hint(format!("root: no rule of polkit's may say yes to {ACTION_ID}")));
    }
    if without_interaction.is_challenge { Ok(()) } else { Err(denied("polkit's rules refuse this")) }
}

fn is_retained(result: &AuthorizationResult) -> bool {
    RETAINED_DETAILS.iter().any(|detail| result.details.contains_key(*detail))
}

fn retained_error() -> Failure {
    denied("polkit is set to remember an authorisation, which any program of yours could use")
        .hint(format!("root: {ACTION_ID} must be auth_self or auth_admin, without _keep"))
}

fn denied(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Denied, what)
}

/// polkit's authentication agent for terminals, started by a waiting client: polkit uses it where the person's
/// desktop has none. Dropping it ends it.
pub(crate) struct TerminalAgent(Child);

impl TerminalAgent {
    /// Starts it for this process, and returns once polkit knows it. `None`: there is no terminal, or no
    /// agent.
    pub(crate) fn start() -> Option<Self> {
        File::open("/dev/tty").ok()?;
        Self::start_registered().ok()
    }

    fn start_registered() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&write, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut command = Command::new(PKTTYAGENT);
        command.args(["--notify-fd", &write.as_raw_fd().to_string()]);
        // As a fallback of the desktop's own agent. Outside a login session polkit does not find such a
        // fallback.
        if DESKTOP_VARIABLES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
        {
            command.arg("--fallback");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process::prepare_child(&mut command, SigSet::empty(), None, None);
        let agent = Self(command.spawn()?);
        drop(write);
        // It closes its end when it has registered, and when it ends because it could not.
        poll(&mut [PollFd::new(read.as_fd(), PollFlags::POLLIN)], REGISTRATION_TIMEOUT_MS)?;
        Ok(agent)
    }
}

impl Drop for TerminalAgent {
    fn drop(&mut self) {
        // By SIGTERM: a killed agent would leave the terminal without echo.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(is_authorized: bool, is_challenge: bool, detail: Option<&str>) -> AuthorizationResult {
        let details = detail.into_iter().map(|name| (name.to_owned(), "1".to_owned())).collect();
        AuthorizationResult { is_authorized, is_challenge, details }
    }

    #[test]
    fn retained_or_silent_authorization_is_refused() {
        assert!(require_challenge(&result(false, true, None)).is_ok());
        let rejection = |result| require_challenge(&result).unwrap_err().message().to_owned();
        assert!(rejection(result(true, false, None)).contains("without asking you"));
        assert!(rejection(result(false, false, None)).contains("rules refuse"));
        for detail in RETAINED_DETAILS {
            assert!(rejection(result(false, true, Some(detail))).contains("remember"));
            assert!(rejection(result(true, false, Some(detail))).contains("remember"));
        }
    }
}
