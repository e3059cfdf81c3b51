//! The rejection of a request: a stable code that other tools match, and a sentence that says what to do. It
//! never contains a secret, a header value or a query.

use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use serde::{Deserialize, Serialize};

/// The stable names of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
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

impl ErrorCode {
    /// The slug as other tools know it.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::CapabilityDenied => "capability_denied",
            ErrorCode::TokenRevoked => "token_revoked",
            ErrorCode::EmptyAllowlist => "empty_allowlist",
            ErrorCode::DomainNotInAllowlist => "domain_not_in_allowlist",
            ErrorCode::NonHttpsBlocked => "non_https_blocked",
            ErrorCode::SsrfProtectionBlocked => "ssrf_protection_blocked",
            ErrorCode::PolicyDenied => "policy_denied",
            ErrorCode::PolicyApprovalRequired => "policy_approval_required",
            ErrorCode::PolicyApprovalDenied => "policy_approval_denied",
            ErrorCode::TargetMismatch => "target_mismatch",
            ErrorCode::RateLimited => "rate_limited",
            ErrorCode::RedactionLimit => "redaction_limit",
            ErrorCode::BodyTooLarge => "body_too_large",
            ErrorCode::BadRequest => "bad_request",
            ErrorCode::SecretMissing => "secret_missing",
            ErrorCode::CredentialUnavailable => "credential_unavailable",
            ErrorCode::StoreUnavailable => "store_unavailable",
            ErrorCode::UpstreamUnavailable => "upstream_unavailable",
            ErrorCode::UpstreamUntrusted => "upstream_untrusted",
            ErrorCode::UpstreamTimeout => "upstream_timeout",
            ErrorCode::UnreadableAnswer => "unreadable_answer",
            ErrorCode::AuditUnavailable => "audit_unavailable",
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
            ErrorCode::BadRequest => 400,
            ErrorCode::BodyTooLarge => 413,
            ErrorCode::TargetMismatch => 421,
            ErrorCode::RateLimited | ErrorCode::RedactionLimit => 429,
            ErrorCode::SecretMissing
            | ErrorCode::CredentialUnavailable
            | ErrorCode::UpstreamUnavailable
            | ErrorCode::UpstreamUntrusted
            | ErrorCode::UnreadableAnswer => 502,
            ErrorCode::StoreUnavailable | ErrorCode::AuditUnavailable => 503,
            ErrorCode::UpstreamTimeout => 504,
            _ => 403,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            ErrorCode::RateLimited
                | ErrorCode::RedactionLimit
                | ErrorCode::CredentialUnavailable
                | ErrorCode::UpstreamUnavailable
                | ErrorCode::UpstreamTimeout
        )
    }
}

/// A refused request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// The code.
    pub code: ErrorCode,
    /// The requested host. Empty until the rejection becomes a response.
    pub domain: String,
    /// The reason and the fix, without values.
    pub message: String,
    /// The rule that decided, such as `coder/2 (policy.yaml:17)`.
    pub rule: Option<String>,
    /// In how many seconds the same request may succeed, where that is known.
    pub retry_after: Option<u64>,
}

impl Rejection {
    /// A rejection without a host and a rule. Stages create it; whoever turns it into a response adds the host.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, domain: String::new(), message: message.into(), rule: None, retry_after: None }
    }

    /// Adds the requested host.
    #[must_use]
    pub fn with_domain(mut self, domain: impl ToString) -> Self {
        self.domain = domain.to_string();
        self
    }

    /// Names the rule that decided.
    pub fn by_rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }
}
