//! The right to spend secrets on one request. Only `policy::evaluate` creates a [`Grant`], and no secret
//! value is read without one.

use std::sync::Arc;

use globset::GlobSet;

use super::access_request::SecretReference;
use super::injection::SecretUse;
use super::minted_credentials::MintedCredential;
use super::path::RequestPath;
use super::private_addresses::PrivateAddresses;
use super::signing::Signing;
use crate::tls::verify::CustomRoots;
use crate::types::name::{AgentName, SecretName};
use crate::types::response_capture::ResponseCapture;

/// Permission for one request to leave with these secrets. Not `Clone`; created by `policy::evaluate` alone.
#[derive(Debug)]
pub struct Grant {
    pub(super) agent: AgentName,
    pub(super) rule: Arc<str>,
    pub(super) secret_uses: Vec<SecretUse>,
    pub(super) quoted: Vec<SecretReference>,
    pub(super) private: PrivateAddresses,
    pub(super) max_body: Option<u64>,
    pub(super) roots: Option<Arc<CustomRoots>>,
    pub(super) signing: Option<Arc<Signing>>,
    pub(super) minted_credentials: Vec<Arc<MintedCredential>>,
    pub(super) captured: Vec<SecretName>,
    pub(super) response_capture: Option<Arc<ResponseCapture>>,
    pub(super) paths: Option<Arc<GlobSet>>,
    pub(super) allows_encoded_slashes: bool,
}

impl Grant {
    /// A grant for tests of later stages.
    #[cfg(test)]
    pub(crate) fn for_test(secret_uses: Vec<SecretUse>) -> Self {
        let agent = "coder".parse().expect("a name");
        let rule = "coder/1".into();
        let private = PrivateAddresses::None;
        Self {
            agent,
            rule,
            secret_uses,
            quoted: Vec::new(),
            private,
            max_body: None,
            roots: None,
            signing: None,
            minted_credentials: Vec::new(),
            captured: Vec::new(),
            response_capture: None,
            paths: None,
            allows_encoded_slashes: true,
        }
    }

    /// The caller's agent entry.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The rule that allowed it, such as `coder/2 (policy.yaml:17)`.
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }

    /// The secrets to spend, each with its style.
    pub fn secret_uses(&self) -> &[SecretUse] {
        &self.secret_uses
    }

    /// The non-public addresses that may be dialled.
    pub fn private(&self) -> &PrivateAddresses {
        &self.private
    }

    /// References at locations that the rule does not fill. They leave as literal text.
    pub fn quoted(&self) -> &[SecretReference] {
        &self.quoted
    }

    /// The only trusted roots for the server's certificate, or `None` for the default ones.
    pub fn roots(&self) -> Option<&Arc<CustomRoots>> {
        self.roots.as_ref()
    }

    /// The credentials to mint for this request.
    pub fn minted_credentials(&self) -> &[Arc<MintedCredential>] {
        &self.minted_credentials
    }

    /// The secrets that were captured from an earlier response.
    pub fn captured(&self) -> &[SecretName] {
        &self.captured
    }

    /// The values to capture or strip from the response.
    pub fn response_capture(&self) -> Option<&Arc<ResponseCapture>> {
        self.response_capture.as_ref()
    }

    /// The signature to add after all other secrets are in.
    pub fn signing(&self) -> Option<&Arc<Signing>> {
        self.signing.as_ref()
    }

    /// Whether the rule also allows `path`, the path after injection. The error is the reason why it is
    /// ambiguous.
    pub fn allows_path(&self, path: &str) -> Result<bool, &'static str> {
        RequestPath::parse(path).is_allowed(self.paths.as_deref(), self.allows_encoded_slashes)
    }

    /// The largest allowed request body, in bytes.
    pub fn max_body(&self) -> Option<u64> {
        self.max_body
    }
}
