//! Admission and its limits, by the contents of the files.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use proptest::prelude::*;

use super::agents::{Agents, Issued, Registered};
use super::sessions::{Holder, Session, Sessions};
use crate::authz::Admitted;
use crate::authz::Capabilities;
use crate::authz::Refused;
use crate::authz::clock;
use crate::authz::session_uses;
use crate::authz::token;
use crate::identity::{Caller, IdentityError, Process};
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::CapabilityCheck;
use crate::policy::injection::{InjectionStyle, SecretUse};
use crate::sys::home::Home;
use crate::types::name::AgentName;
use crate::types::presented::{self, PresentedCredentials};
use crate::types::rejection::ErrorCode;
use crate::types::target::{Scheme, Target};

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn caller(agent: Option<&str>, session: &str, cgroup: &str) -> Result<Caller, IdentityError> {
    let process = Process { pid: 1, cgroup: cgroup.into(), ..Process::for_test() };
    let (process, agent) = (Arc::new(process), agent.map(name));
    Ok(Caller { process, agent, session: session.into(), ..Caller::for_test() })
}

fn in_cgroup(path: &str) -> Session {
    Session::begin(token::new_id().unwrap(), Holder::Cgroup { path: path.into() }, None, None)
}

fn capabilities(agents: Agents, sessions: Vec<Session>) -> (Capabilities, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = Sessions::default();
    file.sessions = sessions;
    (Capabilities::fixed(&Home::at(folder.path()), agents, file).unwrap(), folder)
}

/// An agent with one token, and its text.
fn registered(agent: &str, change: impl FnOnce(&mut Issued)) -> (Agents, String) {
    let minted = token::mint(presented::AGENT).unwrap();
    let (id, sha256) = (minted.id.clone(), minted.digest);
    let mut issued = Issued {
        id,
        sha256,
        issued: Timestamp::now(),
        expires: None,
        project: None,
        environment: None,
        revoked: None,
    };
    change(&mut issued);
    let mut agents = Agents::default();
    let (name, registered) = (name(agent), Timestamp::now());
    agents.agents.push(Registered { name, registered, allow: None, deny: Vec::new(), tokens: vec![issued] });
    (agents, minted.text.to_string())
}

fn slug(admitted: Result<Admitted, Box<Refused>>) -> Option<ErrorCode> {
    admitted.err().map(|refused| refused.refusal.code)
}

#[test]
fn token_identifies_caller_if_the_system_cannot() {
    let (agents, text) = registered("coder", |_| {});
    let (capabilities, _folder) = capabilities(agents, Vec::new());
    let shown = PresentedCredentials::default().with_token(&text);
    for error in [IdentityError::Unsupported, IdentityError::Nobody] {
        let unknown = Err(error);
        let admitted = capabilities.admit(&unknown, &shown).unwrap();
        assert_eq!(admitted.caller.agent, Some(name("coder")));
        assert!(admitted.caller.attributes.is_issued && admitted.caller.attributes.token.is_some());
        assert_eq!(
            slug(capabilities.admit(&unknown, &PresentedCredentials::default())),
            Some(ErrorCode::CapabilityDenied)
        );
        let forged = PresentedCredentials::default().with_token(&format!("{text}x"));
        assert_eq!(slug(capabilities.admit(&unknown, &forged)), Some(ErrorCode::CapabilityDenied));
    }
    // Whom the system knows for another's program, or for several, no token helps.
    for error in [IdentityError::OtherUser, IdentityError::Shared, IdentityError::Gone] {
        assert_eq!(slug(capabilities.admit(&Err(error), &shown)), Some(ErrorCode::CapabilityDenied));
    }
    assert_eq!(
        slug(Capabilities::default().admit(&caller(None, "", "/"), &shown)),
        Some(ErrorCode::CapabilityDenied)
    );
}

#[test]
fn token_of_another_agent_is_refused() {
    let (agents, text) = registered("coder", |_| {});
    let (capabilities, _folder) = capabilities(agents, Vec::new());
    let shown = || PresentedCredentials::default().with_token(&text);
    let admit = |agent, shown: &PresentedCredentials| capabilities.admit(&caller(agent, "", "/"), shown);
    assert_eq!(admit(None, &shown()).unwrap().caller.agent, Some(name("coder")));
    assert!(admit(Some("coder"), &shown()).is_ok());
    assert_eq!(slug(admit(Some("other"), &shown())), Some(ErrorCode::CapabilityDenied));
    assert_eq!(slug(admit(None, &shown().with_name("other"))), Some(ErrorCode::CapabilityDenied));
    // Without a token a name is only said.
    assert!(admit(None, &PresentedCredentials::default().with_name("other")).unwrap().caller.agent.is_none());
}

#[test]
fn expired_or_revoked_token_is_refused_and_recorded() {
    type Change = fn(&mut Issued);
    let changes: [(Change, ErrorCode); 4] = [
        (|issued| issued.revoked = Some(Timestamp::now()), ErrorCode::TokenRevoked),
        (|issued| issued.expires = Some(issued.issued), ErrorCode::CapabilityDenied),
        (|issued| issued.project = Some("other".parse().unwrap()), ErrorCode::CapabilityDenied),
        (|issued| issued.environment = Some("production".parse().unwrap()), ErrorCode::CapabilityDenied),
    ];
    for (change, expected) in changes {
        let (agents, text) = registered("coder", change);
        let (capabilities, _folder) = capabilities(agents, Vec::new());
        let refused = capabilities
            .admit(&caller(None, "", "/"), &PresentedCredentials::default().with_token(&text))
            .err()
            .unwrap();
        assert_eq!(refused.refusal.code, expected);
        assert!(text.contains(&**refused.token.as_ref().unwrap()), "the record says which");
    }
}

#[test]
fn caller_of_an_ended_session_is_refused() {
    let ended = Session { ended: Some(Timestamp::now()), ..in_cgroup("/a") };
    let (capabilities, _folder) = capabilities(Agents::default(), vec![ended.clone(), in_cgroup("/a/b")]);
    assert_eq!(
        slug(capabilities.admit(&caller(None, "", "/a"), &PresentedCredentials::default())),
        Some(ErrorCode::CapabilityDenied)
    );
    assert_eq!(
        slug(capabilities.admit(&caller(None, "", "/a/c"), &PresentedCredentials::default())),
        Some(ErrorCode::CapabilityDenied)
    );
    assert!(
        capabilities.admit(&caller(None, "", "/a/b/c"), &PresentedCredentials::default()).is_ok(),
        "another holds there"
    );
    assert!(
        capabilities.admit(&caller(None, "", "/ab"), &PresentedCredentials::default()).is_ok(),
        "it was never in it"
    );
    // A run that was ended stays ended, whatever else was given to its programs.
    let run = &ended.id;
    assert_eq!(
        slug(capabilities.admit(&caller(None, run, "/a/b"), &PresentedCredentials::default())),
        Some(ErrorCode::CapabilityDenied)
    );
}

#[test]
fn session_of_an_earlier_boot_has_ended() {
    let earlier = Session { boot: "another".into(), ..in_cgroup("/a") };
    let (capabilities, _folder) = capabilities(Agents::default(), vec![earlier]);
    assert_eq!(
        slug(capabilities.admit(&caller(None, "", "/a"), &PresentedCredentials::default())),
        Some(ErrorCode::CapabilityDenied)
    );
    assert!(!clock::boot().is_empty());
}

#[test]
fn sessions_of_two_agents_are_refused_together() {
    let of = |agent: &str| Session { agent: Some(name(agent)), ..in_cgroup("/a") };
    let (one, _folder) = capabilities(Agents::default(), vec![of("coder")]);
    let admitted = one.admit(&caller(None, "", "/a"), &PresentedCredentials::default()).unwrap();
    assert_eq!(admitted.caller.agent, Some(name("coder")));
    assert!(one.admit(&caller(Some("other"), "", "/a"), &PresentedCredentials::default()).is_err());
    let (both, _folder) = capabilities(Agents::default(), vec![of("coder"), of("other")]);
    assert!(both.admit(&caller(None, "", "/a"), &PresentedCredentials::default()).is_err());
}

#[tokio::test]
async fn uses_are_counted_for_every_session_that_counts_them() {
    let session = Session { uses: Some(2), ..in_cgroup("/a") };
    let (capabilities, folder) = capabilities(Agents::default(), vec![session.clone(), in_cgroup("/a")]);
    let admit = || capabilities.admit(&caller(None, "", "/a"), &PresentedCredentials::default());
    // A count that is not there is none that is left.
    assert!(admit().is_ok(), "the other session holds");
    session_uses::begin(&Home::at(folder.path()).session_uses(&session.id)).unwrap();
    let admitted = admit().unwrap().caller;
    assert_eq!(admitted.attributes.sessions.len(), 2);
    for may in [true, true, false] {
        assert_eq!(capabilities.charge(&admitted).await.is_ok(), may);
    }
}

proptest! {
    /// Of sessions that overlap, what is left is what each of those that live includes.
    #[test]
    fn every_overlapping_session_limits_the_caller(
        sessions in prop::collection::vec((any::<[bool; 3]>(), any::<[bool; 2]>(), any::<bool>(), any::<bool>()), 0..6),
        asks in (0_usize..3, 0_usize..2),
    ) {
        const SECRETS: [&str; 3] = ["A", "B", "C"];
        const HOSTS: [&str; 2] = ["a.test", "b.test"];
        let (secret, host) = asks;
        let made: Vec<Session> = sessions.iter().map(|(secrets, hosts, is_over, is_near)| {
            let chosen = |is: &[bool], names: &[&str]| -> Vec<String> {
                names.iter().zip(is).filter(|(_, is)| **is).map(|(name, _)| name.to_string()).collect()
            };
            let secrets = chosen(secrets, &SECRETS).iter().map(|name| name.parse().unwrap()).collect();
            Session {
                secrets: Some(secrets),
                hosts: Some(chosen(hosts, &HOSTS)),
                ended: is_over.then(Timestamp::now),
                ..in_cgroup(if *is_near { "/a/b" } else { "/a" })
            }
        }).collect();
        let (capabilities, _folder) = capabilities(Agents::default(), made);
        let live: Vec<_> = sessions.iter().filter(|(_, _, is_over, _)| !is_over).collect();
        let expected = if live.is_empty() { sessions.is_empty() } else {
            live.iter().all(|(secrets, hosts, _, _)| secrets[secret] && hosts[host])
        };
        let target = Target { scheme: Scheme::Https, host: HOSTS[host].parse().unwrap(), port: 443 };
        let ask = AccessRequest { target: &target, method: &Method::GET, path: "/", websocket: false, references: &[] };
        let spends = [SecretUse { name: SECRETS[secret].parse().unwrap(), style: InjectionStyle::Bearer }];
        let allowed = capabilities.admit(&caller(None, "", "/a/b"), &PresentedCredentials::default())
            .is_ok_and(|admitted| capabilities.rejection(&admitted.caller, &ask, &spends).is_none());
        prop_assert_eq!(allowed, expected);
    }

    /// A session with a time limit ends when that has passed, whichever sessions exist beside it.
    #[test]
    fn expired_session_or_token_is_refused(ages in prop::collection::vec(0_i64..200, 1..6)) {
        let sessions: Vec<Session> = ages.iter().map(|age| {
            let started = Timestamp::now() - Duration::from_secs(*age as u64);
            let (expires, uptime) = (Some(started + Duration::from_secs(100)), clock::uptime() - *age as u64);
            Session { started, expires, uptime, ..in_cgroup("/a") }
        }).collect();
        let (capabilities, _folder) = capabilities(Agents::default(), sessions);
        // Near the end either may be.
        prop_assume!(ages.iter().all(|age| !(98..=101).contains(age)));
        let admitted = capabilities.admit(&caller(None, "", "/a"), &PresentedCredentials::default());
        prop_assert_eq!(admitted.is_ok(), ages.iter().any(|age| *age < 100));
    }
}
