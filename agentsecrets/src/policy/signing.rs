//! The signature that a rule puts on requests: its secrets, and the parts that a client may choose. A
//! placeholder for one of these secrets is denied like any that the rule does not fill, so that the secrets
//! never leave.

use http::HeaderName;

use super::access_request::SecretReference;
use super::injection::{InjectionStyle, SecretUse};
use super::location::LocationKind;
use super::template::Template;
use crate::types::name::SecretName;

/// The method that signs requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// AWS Signature Version 4 or 4A.
    Aws(AwsSigning),
    /// A keyed hash in a header.
    Hmac(HmacSigning),
}

/// AWS Signature Version 4, or 4A if the client uses that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsSigning {
    /// The secret with the access key id.
    pub access_key: SecretName,
    /// The secret with the secret access key.
    pub secret_key: SecretName,
    /// The secret with the session token of a temporary key.
    pub session_token: Option<SecretName>,
    /// The regions that a client may sign for, or `None` for any.
    pub regions: Option<Vec<String>>,
    /// The services that a client may sign for, or `None` for any.
    pub services: Option<Vec<String>>,
}

/// A keyed hash of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacSigning {
    /// The secret with the key.
    pub key: SecretName,
    /// The header for the signature.
    pub header: HeaderName,
    /// The signed text.
    pub message: Template,
    /// The value of the header.
    pub value: Template,
    /// Other headers to set.
    pub extra_headers: Vec<(HeaderName, Template)>,
    /// The hash function.
    pub algorithm: HashAlgorithm,
    /// The text encoding of the signature.
    pub encoding: SignatureEncoding,
}

/// A hash function of HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-1, for old services.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The text encoding of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Lower-case hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
    /// Base64 of the URL alphabet, without padding.
    Base64url,
}

impl Signing {
    /// The secrets that it spends.
    pub(super) fn secret_uses(&self) -> Vec<SecretUse> {
        let secret_use = |name: &SecretName, style| SecretUse { name: name.clone(), style };
        match self {
            Self::Aws(aws) => [Some(&aws.access_key), Some(&aws.secret_key), aws.session_token.as_ref()]
                .into_iter()
                .flatten()
                .map(|name| secret_use(name, InjectionStyle::AwsSignature))
                .collect(),
            Self::Hmac(hmac) => vec![secret_use(&hmac.key, InjectionStyle::HmacSignature)],
        }
    }

    /// Whether it sets this header and overrides the client's value.
    pub fn sets_header(&self, header: &HeaderName) -> bool {
        match self {
            Self::Aws(_) => *header == http::header::AUTHORIZATION,
            Self::Hmac(hmac) => *header == hmac.header,
        }
    }

    /// Whether `reference` belongs to a client signature that is replaced: clients sign with the placeholder
    /// of the key, and send the placeholders of its id and token.
    pub(super) fn replaces(&self, reference: &SecretReference) -> bool {
        match self {
            Self::Aws(aws) => {
                let is_named =
                    aws.access_key == reference.name || aws.session_token.as_ref() == Some(&reference.name);
                let point = reference.style.injection_point().filter(|_| reference.is_placeholder());
                is_named
                    && point
                        .is_some_and(|point| matches!(point.kind, LocationKind::Auth | LocationKind::Query))
            }
            Self::Hmac(_) => false,
        }
    }
}
