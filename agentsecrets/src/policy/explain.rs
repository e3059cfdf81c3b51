//! What a person is told about a decision: which rules were considered, what each said, and which one
//! decides. It mints no grant and charges no rate, since nobody asked to leave.

use std::sync::Arc;
use std::time::Duration;

use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Scheme;

use super::connection::passes;
use super::grant::{Decision, Spend};
use super::path::Path;
use super::rules::{Agent, Policy};
use crate::policy::access_request::{Area, Ask};
use crate::policy::evaluate::{candidates, judge, weigh};

/// A decision with its reasons.
#[derive(Debug)]
pub struct Explanation {
    /// What would happen.
    pub outcome: Result<Allowed, Rejection>,
    /// The rules for the host, in the order of the file.
    pub considered: Vec<Considered>,
}

/// What the deciding rule allows.
#[derive(Debug)]
pub struct Allowed {
    /// The rule.
    pub rule: Arc<str>,
    /// What would be spent.
    pub spends: Vec<Spend>,
    /// Whether the connection is passed on unopened, so that nothing of the request is judged.
    pub unopened: bool,
    /// How long it waits for a person, who must approve it.
    pub waits: Option<Duration>,
}

/// One rule for the host.
#[derive(Debug)]
pub struct Considered {
    /// The rule.
    pub rule: Arc<str>,
    /// Why it does not allow the request, or `None` if it does.
    pub objection: Option<String>,
    /// Secrets that may be referred to under it.
    pub secrets: Vec<crate::types::name::SecretName>,
    /// Where its placeholders are filled.
    pub places: Vec<Area>,
}

/// What `policy` says to `ask` when `agent` asks. The policy must be one that serves nobody, as its rates
/// are charged like any other's.
pub fn explain(policy: &Policy, agent: &Agent, ask: &Ask<'_>) -> Explanation {
    let passing = Some(ask.target).filter(|target| target.scheme == Scheme::Https);
    let passing = passing.and_then(|target| passes(agent, &target.host, target.port)).map(|rule| &rule.id);
    let outcome = match (passing, judge(policy, agent, ask, std::time::Instant::now(), |_| None)) {
        (Some(rule), _) => {
            Ok(Allowed { rule: Arc::clone(rule), spends: Vec::new(), unopened: true, waits: None })
        }
        (None, Decision::Allow(grant)) => {
            let (rule, spends) = (Arc::clone(grant.rule()), grant.spends().to_vec());
            Ok(Allowed { rule, spends, unopened: false, waits: None })
        }
        (None, Decision::Hold(held)) => {
            let (rule, spends) = (Arc::clone(held.rule()), held.spends().to_vec());
            Ok(Allowed { rule, spends, unopened: false, waits: Some(held.wait()) })
        }
        (None, Decision::Deny(refusal)) => Err(refusal),
    };
    let path = Path::read(ask.path);
    let non_https = matches!(&outcome, Err(refusal) if refusal.code == ErrorCode::NonHttpsBlocked);
    let considered = candidates(agent, &ask.target.host).into_iter().map(|rule| {
        let plain = non_https && ask.target.scheme == Scheme::Http;
        let objection = match weigh(rule, ask, &path) {
            _ if passing == Some(&rule.id) => None,
            Ok(spends) if plain && !spends.is_empty() => Some("plain HTTP would carry a secret".to_owned()),
            Ok(_) => None,
            Err(miss) => Some(miss.message(agent, ask)),
        };
        Considered {
            rule: Arc::clone(&rule.id),
            objection,
            secrets: rule.secrets.clone(),
            places: rule.places.clone(),
        }
    });
    Explanation { considered: considered.collect(), outcome }
}
