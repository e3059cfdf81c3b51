//! The right to spend secrets on one request. Only `policy::evaluate` makes one; `resolve` asks for it
//! and nothing else yields a value.

use std::sync::Arc;

use globset::GlobSet;
use http::HeaderName;
use http::header::AUTHORIZATION;

use crate::tls::verify::Roots;
use crate::types::name::{AgentName, SecretName};
use crate::types::rejection::Rejection;

use super::path::Path;
use super::signing::Signing;
use crate::approval::Held;
use crate::policy::access_request::{Place, Reference, Spot};
use crate::policy::minted_credentials::Derived;
use crate::policy::response_capture::Taking;
use crate::types::json_path::JsonPath;

/// What the policy says of a request.
#[derive(Debug)]
pub enum Decision {
    /// It does not leave.
    Deny(Rejection),
    /// It leaves, with the secrets of the grant (which may be none).
    Allow(Grant),
    /// It leaves if a person approves it.
    Hold(Held),
}

/// Leave for one request to leave, with these secrets. Not `Clone`; made by `policy::evaluate` alone.
#[derive(Debug)]
pub struct Grant {
    pub(super) agent: AgentName,
    pub(super) rule: Arc<str>,
    pub(super) spends: Vec<Spend>,
    pub(super) quoted: Vec<Reference>,
    pub(super) private: PrivateAddresses,
    pub(super) max_body: Option<u64>,
    pub(super) roots: Option<Arc<Roots>>,
    pub(super) signing: Option<Arc<Signing>>,
    pub(super) derived: Vec<Arc<Derived>>,
    pub(super) captured: Vec<SecretName>,
    pub(super) taking: Option<Arc<Taking>>,
    pub(super) paths: Option<Arc<GlobSet>>,
    pub(super) encoded_slashes: bool,
}

/// One secret to be spent, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// Which secret.
    pub name: SecretName,
    /// How it gets into the request.
    pub style: Style,
}

/// How a secret gets into a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Style {
    /// In the place of its placeholder.
    Placeholder(Spot),
    /// As `Authorization: Bearer …`.
    Bearer,
    /// As `Authorization: Basic …`; the secret is `user:password`.
    Basic,
    /// As the whole value of this header.
    Header(HeaderName),
    /// As the value of this query parameter.
    Query(Arc<str>),
    /// In the place of this text in the path.
    Path(Arc<str>),
    /// As the value of this cookie.
    Cookie(Arc<str>),
    /// As the string at this path of the JSON body.
    Json(Arc<JsonPath>),
    /// As the value of this field of the form in the body.
    Form(Arc<str>),
    /// As the client's certificate in the TLS handshake, if the server asks for one. The secret is the
    /// certificate chain and its key, in PEM.
    ClientCertificate,
    /// In an AWS signature (version 4 or 4A), or as the session token beside it.
    AwsSignature,
    /// In the signature that its rule describes: a keyed hash.
    HmacSignature,
}

impl Style {
    /// Where in the request the secret then stands; nowhere, if it is not in the request.
    pub fn spot(&self) -> Option<Spot> {
        Some(match self {
            Style::Placeholder(spot) => spot.clone(),
            Style::Bearer | Style::Basic => Spot::header(&AUTHORIZATION),
            Style::Header(name) => Spot::header(name),
            Style::Query(name) => Spot::new(Place::Query, name.clone()),
            Style::Path(_) => Spot::new(Place::Path, ""),
            Style::Cookie(name) => Spot::new(Place::Cookie, name.clone()),
            Style::Json(path) => Spot::new(Place::Json, path.to_string()),
            Style::Form(name) => Spot::new(Place::Form, name.clone()),
            Style::ClientCertificate | Style::AwsSignature | Style::HmacSignature => return None,
        })
    }

    /// Whether it changes the request's body.
    pub fn is_in_body(&self) -> bool {
        match self {
            Style::Placeholder(spot) => spot.place.is_in_body(),
            Style::Json(_) | Style::Form(_) => true,
            _ => false,
        }
    }
}

/// Which non-public addresses a rule lets us dial.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PrivateAddresses {
    /// None: public addresses only.
    #[default]
    None,
    /// Loopback and private ones, but never metadata addresses.
    Any,
    /// Only those within these networks.
    Within(Arc<[ipnet::IpNet]>),
}

impl Grant {
    /// A grant for the tests of later stages.
    #[cfg(test)]
    pub(crate) fn for_test(spends: Vec<Spend>) -> Self {
        let agent = "coder".parse().expect("a name");
        let rule = "coder/1".into();
        let private = PrivateAddresses::None;
        Self {
            agent,
            rule,
            spends,
            quoted: Vec::new(),
            private,
            max_body: None,
            roots: None,
            signing: None,
            derived: Vec::new(),
            captured: Vec::new(),
            taking: None,
            paths: None,
            encoded_slashes: true,
        }
    }

    /// The agent entry that the caller is.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The rule that allowed it, such as `coder/2 (policy.yaml:17)`.
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }

    /// The secrets to spend.
    pub fn spends(&self) -> &[Spend] {
        &self.spends
    }

    /// Which non-public addresses may be dialled for it.
    pub fn private(&self) -> &PrivateAddresses {
        &self.private
    }

    /// References that stand where this rule fills nothing: they leave as the text they are.
    pub fn quoted(&self) -> &[Reference] {
        &self.quoted
    }

    /// The only roots that its server's certificate may stand under; none for the usual ones.
    pub fn roots(&self) -> Option<&Arc<Roots>> {
        self.roots.as_ref()
    }

    /// How those of the secrets are made that are not stored.
    pub fn derived(&self) -> &[Arc<Derived>] {
        &self.derived
    }

    /// Which of the secrets are what an answer minted before.
    pub fn captured(&self) -> &[SecretName] {
        &self.captured
    }

    /// What is taken out of the answer.
    pub fn taking(&self) -> Option<&Arc<Taking>> {
        self.taking.as_ref()
    }

    /// How the request is signed, once everything else was put in.
    pub fn signing(&self) -> Option<&Arc<Signing>> {
        self.signing.as_ref()
    }

    /// Whether the rule allows `path` too, which is what the request's became. An error says what makes it
    /// ambiguous.
    pub fn allows_path(&self, path: &str) -> Result<bool, &'static str> {
        Path::read(path).allowed(self.paths.as_deref(), self.encoded_slashes)
    }

    /// The largest request body the rule lets leave, in bytes.
    pub fn max_body(&self) -> Option<u64> {
        self.max_body
    }
}
