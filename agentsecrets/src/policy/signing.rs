//! How a rule signs requests: with which secrets, and what it lets a client choose. The secrets themselves
//! never leave; where one is named as a placeholder, it is denied like any that the rule does not fill.

use http::HeaderName;
use serde_yaml::Spanned;

use crate::types::name::SecretName;

use super::compile::Findings;
use super::grant::{Spend, Style};
use super::template::{Part, Template};
use crate::policy::access_request::{Place, Reference};
use crate::policy::inject_rules::injectable_header;
use crate::policy::schema::{self, HmacAlgorithm, HmacEncoding, Text};
use crate::types::printable::excerpt;

/// How requests are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// As AWS's services ask for.
    Aws(Aws),
    /// By a keyed hash in a header.
    Hmac(Hmac),
}

/// AWS Signature Version 4, or 4A where the client uses that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aws {
    /// The secret that is the key's id.
    pub access_key: SecretName,
    /// The secret that is the key.
    pub secret_key: SecretName,
    /// The secret that is the session token of a temporary key.
    pub session_token: Option<SecretName>,
    /// The regions that a client may sign for; any, where there is no list.
    pub regions: Option<Vec<String>>,
    /// The services that a client may sign for; any, where there is no list.
    pub services: Option<Vec<String>>,
}

/// A keyed hash of what a template says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hmac {
    /// The secret that is the key.
    pub key: SecretName,
    /// Where the signature goes.
    pub header: HeaderName,
    /// What is signed.
    pub message: Template,
    /// What the header says.
    pub value: Template,
    /// Other headers that are set beside it.
    pub also: Vec<(HeaderName, Template)>,
    /// The hash.
    pub algorithm: Algorithm,
    /// How the signature is written.
    pub encoding: Encoding,
}

/// A hash for a keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, which old services still ask for.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How bytes are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lower-case hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
    /// Base64 of the URL alphabet, without padding.
    Base64url,
}

impl Signing {
    /// What it spends.
    pub(super) fn spends(&self) -> Vec<Spend> {
        let spend = |name: &SecretName, style| Spend { name: name.clone(), style };
        match self {
            Self::Aws(aws) => [Some(&aws.access_key), Some(&aws.secret_key), aws.session_token.as_ref()]
                .into_iter()
                .flatten()
                .map(|name| spend(name, Style::AwsSignature))
                .collect(),
            Self::Hmac(hmac) => vec![spend(&hmac.key, Style::HmacSignature)],
        }
    }

    /// Whether it sets this header, whatever the client set it to.
    pub fn sets(&self, header: &HeaderName) -> bool {
        match self {
            Self::Aws(_) => *header == http::header::AUTHORIZATION,
            Self::Hmac(hmac) => *header == hmac.header,
        }
    }

    /// Whether `reference` is part of a signature that is made anew: a client signs with the placeholders of
    /// its key, and says the key's id and token.
    pub(super) fn replaces(&self, reference: &Reference) -> bool {
        match self {
            Self::Aws(aws) => {
                let told =
                    aws.access_key == reference.name || aws.session_token.as_ref() == Some(&reference.name);
                let spot = reference.style.spot().filter(|_| reference.is_text());
                told && spot.is_some_and(|spot| matches!(spot.place, Place::Auth | Place::Query))
            }
            Self::Hmac(_) => false,
        }
    }
}

impl Findings {
    pub(super) fn signing(&mut self, spanned: &Spanned<schema::Sign>) -> Option<Signing> {
        match (&spanned.value.aws, &spanned.value.hmac) {
            (Some(aws), None) => self.aws(&aws.value).map(Signing::Aws),
            (None, Some(hmac)) => self.hmac(&hmac.value).map(Signing::Hmac),
            _ => {
                self.error(spanned, "'sign' has one key: aws or hmac");
                None
            }
        }
    }

    fn aws(&mut self, written: &schema::SignAws) -> Option<Aws> {
        let names = [Some(&written.access_key), Some(&written.secret_key), written.session_token.as_ref()];
        let names = names.map(|text| text.map(|text| self.parse::<SecretName>(text)));
        let regions = self.limiting("regions", written.regions.as_ref(), |text| scope("a region", text));
        let services = self.limiting("services", written.services.as_ref(), |text| scope("a service", text));
        let [Some(Some(access_key)), Some(Some(secret_key)), session_token] = names else { return None };
        if access_key == secret_key {
            self.error(&written.secret_key, "the key's id and the key are two secrets");
        }
        Some(Aws { access_key, secret_key, session_token: session_token.flatten(), regions, services })
    }

    fn hmac(&mut self, written: &schema::SignHmac) -> Option<Hmac> {
        let key = self.parse::<SecretName>(&written.key);
        let header = self.keep(&written.header, injectable_header(&written.header.value));
        let message = self.template(&written.message, &[Part::Signature]);
        let value = match &written.value {
            Some(text) => self.template(text, &[Part::Body]),
            None => Template::read("{signature}", &[]).ok(),
        };
        if let (Some(text), Some(value)) = (&written.value, &value)
            && !value.has(&Part::Signature)
        {
            self.error(text, "'value' has no {signature}");
        }
        let mut also = Vec::new();
        for (name, text) in &written.also {
            let name = self.keep(text, injectable_header(name));
            let template = self.template(text, &[Part::Body, Part::Signature]);
            also.extend(name.zip(template));
        }
        if let Some(text) =
            written.also.iter().find(|(name, _)| name.eq_ignore_ascii_case(&written.header.value))
        {
            self.error(text.1, "the header of the signature is set by 'value'");
        }
        let algorithm = match written.algorithm.as_ref().map(|spanned| spanned.value) {
            Some(HmacAlgorithm::Sha1) => Algorithm::Sha1,
            Some(HmacAlgorithm::Sha256) | None => Algorithm::Sha256,
            Some(HmacAlgorithm::Sha384) => Algorithm::Sha384,
            Some(HmacAlgorithm::Sha512) => Algorithm::Sha512,
        };
        let encoding = match written.encoding.as_ref().map(|spanned| spanned.value) {
            Some(HmacEncoding::Hex) | None => Encoding::Hex,
            Some(HmacEncoding::Base64) => Encoding::Base64,
            Some(HmacEncoding::Base64url) => Encoding::Base64url,
        };
        Some(Hmac { key: key?, header: header?, message: message?, value: value?, also, algorithm, encoding })
    }

    fn template(&mut self, text: &Text, without: &[Part]) -> Option<Template> {
        self.keep(text, Template::read(&text.value, without))
    }
}

/// A part of a credential's scope, such as `eu-west-1` or `s3`.
fn scope(what: &str, text: &str) -> Result<String, String> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text == "*" || (!text.is_empty() && text.len() <= 64 && text.bytes().all(valid)) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{}' is not {what}: write it as eu-west-1 or s3, or leave the list out to allow all",
        excerpt(text)
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::policy::Policy;

    fn read(sign: &str) -> Result<Policy, String> {
        let text = format!(
            "version: 1\nagents:\n  - name: a\n    allow:\n      - host: api.x.com\n        sign:\n{sign}\n"
        );
        Policy::parse(&text, Path::new("p")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_rule_signs_with_is_the_agents_to_spend_and_no_placeholder() {
        let policy = read(
            "          aws: { access_key: ID, secret_key: KEY, session_token: TOKEN, regions: [us-east-1] }",
        );
        let policy = policy.unwrap();
        let agent = &policy.agents()[0];
        assert_eq!(agent.secrets().map(|name| name.as_str()).collect::<Vec<_>>(), ["ID", "KEY", "TOKEN"]);
        assert!(agent.rules[0].secrets.is_empty());
        let slack = "          hmac: { key: KEY, header: X-Slack-Signature, message: 'v0:{timestamp}:{body}', value: \
                     'v0={signature}', also: { X-Slack-Request-Timestamp: '{timestamp}' }, algorithm: sha256 }";
        read(slack).unwrap();
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (sign, told) in [
            ("          {}", "p:7: 'sign' has one key"),
            ("          aws: { access_key: ID }", "p:7: missing field"),
            (
                "          aws: { access_key: ID, secret_key: ID }",
                "p:7: the key's id and the key are two secrets",
            ),
            ("          aws: { access_key: ID, secret_key: 'a b' }", "p:7: 'a b' is not a valid secret name"),
            ("          aws: { access_key: ID, secret_key: K, region: x }", "p:7: unknown field"),
            (
                "          aws:\n            access_key: ID\n            secret_key: K\n            regions: []",
                "p:10: 'regions' is empty",
            ),
            (
                "          aws:\n            access_key: ID\n            secret_key: K\n            regions: [US]",
                "p:10: 'US' is not a region",
            ),
            (
                "          hmac:\n            key: K\n            header: Host\n            message: x",
                "p:9: the header 'host'",
            ),
            (
                "          hmac:\n            key: K\n            header: X-S\n            message: '{bdy}'",
                "p:10: '{bdy}' stands for nothing",
            ),
            (
                "          hmac:\n            key: K\n            header: X-S\n            message: x\n            value: v1",
                "p:11: 'value' has no {signature}",
            ),
            (
                "          hmac:\n            key: K\n            header: X-S\n            message: x\n            algorithm: md5",
                "p:11",
            ),
            (
                "          hmac:\n            key: K\n            header: X-S\n            message: x\n            also: { x-s: y }",
                "p:11: the header of the signature",
            ),
        ] {
            let error = read(sign).unwrap_err();
            assert!(error.contains(told), "{sign}: {error}");
        }
    }
}
