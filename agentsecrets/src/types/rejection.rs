//! What an agent is told when a request is refused: a stable slug that other tools match, and a
//! sentence that says what to do. A refusal never holds a secret, a header value or a query.

use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use serde::{Deserialize, Serialize};

/// The stable names of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slug {
    /// The caller is unknown, or no agent entry holds for it.
    CapabilityDenied,
    /// The agent token was revoked.
    TokenRevoked,
    /// The policy has no rule at all for this agent.
    EmptyAllowlist,
    /// No rule names the host.
    DomainNotInAllowlist,
    /// Plain HTTP was asked to carry a secret.
    NonHttpsBlocked,
    /// The host resolves to an address that must not be dialled.
    SsrfProtectionBlocked,
    /// A rule names the host, but not this method, path, port, place or secret.
    PolicyDenied,
    /// A person must approve, and has not.
    PolicyApprovalRequired,
    /// A person said no.
    PolicyApprovalDenied,
    /// SNI, Host or `:authority`, and URI disagree.
    TargetMismatch,
    /// Too many requests.
    RateLimited,
    /// Pieces of a secret came back from the host too often.
    RedactionLimit,
    /// The body is larger than the rule allows.
    BodyTooLarge,
    /// The request is malformed or ambiguous.
    BadRequest,
    /// A secret is allowed here, but no store holds it.
    SecretMissing,
    /// A credential could not be made from stored secrets.
    CredentialUnavailable,
    /// The secret store could not be read.
    StoreUnavailable,
    /// The upstream could not be reached, or broke off.
    UpstreamUnavailable,
    /// The upstream's certificate does not prove its name.
    UpstreamUntrusted,
    /// The upstream took too long.
    UpstreamTimeout,
    /// The answer cannot be searched for secrets.
    UnreadableAnswer,
    /// The audit log cannot be written, so nothing is spent.
    AuditUnavailable,
}

impl Slug {
    /// The slug as other tools know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Slug::CapabilityDenied => "capability_denied",
            Slug::TokenRevoked => "token_revoked",
            Slug::EmptyAllowlist => "empty_allowlist",
            Slug::DomainNotInAllowlist => "domain_not_in_allowlist",
            Slug::NonHttpsBlocked => "non_https_blocked",
            Slug::SsrfProtectionBlocked => "ssrf_protection_blocked",
            Slug::PolicyDenied => "policy_denied",
            Slug::PolicyApprovalRequired => "policy_approval_required",
            Slug::PolicyApprovalDenied => "policy_approval_denied",
            Slug::TargetMismatch => "target_mismatch",
            Slug::RateLimited => "rate_limited",
            Slug::RedactionLimit => "redaction_limit",
            Slug::BodyTooLarge => "body_too_large",
            Slug::BadRequest => "bad_request",
            Slug::SecretMissing => "secret_missing",
            Slug::CredentialUnavailable => "credential_unavailable",
            Slug::StoreUnavailable => "store_unavailable",
            Slug::UpstreamUnavailable => "upstream_unavailable",
            Slug::UpstreamUntrusted => "upstream_untrusted",
            Slug::UpstreamTimeout => "upstream_timeout",
            Slug::UnreadableAnswer => "unreadable_answer",
            Slug::AuditUnavailable => "audit_unavailable",
        }
    }

    /// The slug that `name` is.
    pub fn named(name: &str) -> Option<Self> {
        let name: StrDeserializer<'_, Error> = name.into_deserializer();
        Self::deserialize(name).ok()
    }

    /// The HTTP status that carries it.
    pub fn status(self) -> u16 {
        match self {
            Slug::BadRequest => 400,
            Slug::BodyTooLarge => 413,
            Slug::TargetMismatch => 421,
            Slug::RateLimited | Slug::RedactionLimit => 429,
            Slug::SecretMissing
            | Slug::CredentialUnavailable
            | Slug::UpstreamUnavailable
            | Slug::UpstreamUntrusted
            | Slug::UnreadableAnswer => 502,
            Slug::StoreUnavailable | Slug::AuditUnavailable => 503,
            Slug::UpstreamTimeout => 504,
            _ => 403,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Slug::RateLimited
                | Slug::RedactionLimit
                | Slug::CredentialUnavailable
                | Slug::UpstreamUnavailable
                | Slug::UpstreamTimeout
        )
    }
}

/// A refused request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Which refusal.
    pub slug: Slug,
    /// The host that was asked for, where one was.
    pub domain: String,
    /// What happened and what to do, without values.
    pub message: String,
    /// The rule that decided, such as `coder/2 (policy.yaml:17)`.
    pub rule: Option<String>,
    /// In how many seconds the same request may succeed, where that is known.
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal that no rule decided.
    pub fn new(slug: Slug, domain: impl ToString, message: impl Into<String>) -> Self {
        Self { slug, domain: domain.to_string(), message: message.into(), rule: None, retry_after: None }
    }

    /// Names the host that was asked for, where the stage that refused did not know it.
    pub fn about(mut self, domain: impl ToString) -> Self {
        if self.domain.is_empty() {
            self.domain = domain.to_string();
        }
        self
    }

    /// Names the rule that decided.
    pub fn by_rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }
}
