//! Explains a decision for `policy explain`: every rule for the host, and the one that decides. It creates no
//! grant and sends nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Scheme;

use super::connection::passthrough_rule;
use super::evaluate::Decision;
use super::injection::SecretUse;
use super::path::RequestPath;
use super::rules::{Agent, Policy};
use crate::policy::access_request::AccessRequest;
use crate::policy::evaluate::{candidates, decide, match_rule};
use crate::policy::location::LocationPattern;

/// A decision with its reasons.
#[derive(Debug)]
pub(crate) struct Explanation {
    /// The decision.
    pub outcome: Result<AllowedOutcome, Rejection>,
    /// The rules for the host, in the order of the file.
    pub rules: Vec<RuleAssessment>,
}

/// An allowed request.
#[derive(Debug)]
pub(crate) struct AllowedOutcome {
    /// The id of the rule.
    pub rule: Arc<str>,
    /// The secrets that would be spent.
    pub secret_uses: Vec<SecretUse>,
    /// Whether the connection is passed through unopened, so that its requests are not decided.
    pub is_passthrough: bool,
    /// The longest time that it waits for approval, if it needs one.
    pub approval_timeout: Option<Duration>,
}

/// One rule for the host, matched against the request.
#[derive(Debug)]
pub(crate) struct RuleAssessment {
    /// The id of the rule.
    pub rule: Arc<str>,
    /// The reason why it does not allow the request, or `None` if it does.
    pub mismatch: Option<String>,
    /// The secrets that a request may refer to.
    pub secrets: Vec<SecretName>,
    /// The locations where placeholders are filled.
    pub locations: Vec<LocationPattern>,
}

/// Explains the decision of `policy` on a request of `agent`. The policy must not be in use elsewhere, as its
/// rate limits are charged.
pub(crate) fn explain(policy: &Policy, agent: &Agent, request: &AccessRequest<'_>) -> Explanation {
    let https = Some(request.target).filter(|target| target.scheme == Scheme::Https);
    let passthrough =
        https.and_then(|target| passthrough_rule(agent, &target.host, target.port)).map(|rule| &rule.id);
    let outcome = match (passthrough, decide(policy, agent, request, std::time::Instant::now(), |_| None)) {
        (Some(rule), _) => Ok(AllowedOutcome {
            rule: Arc::clone(rule),
            secret_uses: Vec::new(),
            is_passthrough: true,
            approval_timeout: None,
        }),
        (None, Decision::Allow(grant)) => {
            let (rule, secret_uses) = (Arc::clone(grant.rule()), grant.secret_uses().to_vec());
            Ok(AllowedOutcome { rule, secret_uses, is_passthrough: false, approval_timeout: None })
        }
        (None, Decision::NeedsApproval(pending)) => {
            let (rule, secret_uses) = (Arc::clone(pending.rule()), pending.secret_uses().to_vec());
            Ok(AllowedOutcome {
                rule,
                secret_uses,
                is_passthrough: false,
                approval_timeout: Some(pending.timeout()),
            })
        }
        (None, Decision::Deny(rejection)) => Err(rejection),
    };
    let path = RequestPath::parse(request.path);
    let non_https = matches!(&outcome, Err(rejection) if rejection.code == ErrorCode::NonHttpsBlocked);
    let rules = candidates(agent, &request.target.host).into_iter().map(|rule| {
        let plain = non_https && request.target.scheme == Scheme::Http;
        let mismatch = match match_rule(rule, request, &path) {
            _ if passthrough == Some(&rule.id) => None,
            Ok(secret_uses) if plain && !secret_uses.is_empty() => {
                Some("plain HTTP would carry a secret".to_owned())
            }
            Ok(_) => None,
            Err(mismatch) => Some(mismatch.message(agent, request)),
        };
        RuleAssessment {
            rule: Arc::clone(&rule.id),
            mismatch,
            secrets: rule.secrets.clone(),
            locations: rule.locations.clone(),
        }
    });
    Explanation { rules: rules.collect(), outcome }
}
