//! Compiles `sign:` entries.

use serde_yaml::Spanned;

use super::diagnostics::Diagnostics;
use super::schema::{self, HmacAlgorithm, HmacEncoding, Text};
use crate::policy::injection::parse_injectable_header;
use crate::policy::signing::{AwsSigning, HashAlgorithm, HmacSigning, SignatureEncoding, Signing};
use crate::policy::template::{Template, TemplatePart};
use crate::types::name::SecretName;
use crate::types::printable::excerpt;

impl Diagnostics {
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

    fn aws(&mut self, written: &schema::SignAws) -> Option<AwsSigning> {
        let names = [Some(&written.access_key), Some(&written.secret_key), written.session_token.as_ref()];
        let names = names.map(|text| text.map(|text| self.parse::<SecretName>(text)));
        let regions =
            self.parse_limit("regions", written.regions.as_ref(), |text| parse_scope("a region", text));
        let services =
            self.parse_limit("services", written.services.as_ref(), |text| parse_scope("a service", text));
        let [Some(Some(access_key)), Some(Some(secret_key)), session_token] = names else { return None };
        if access_key == secret_key {
            self.error(&written.secret_key, "the key's id and the key are two secrets");
        }
        Some(AwsSigning { access_key, secret_key, session_token: session_token.flatten(), regions, services })
    }

    fn hmac(&mut self, written: &schema::SignHmac) -> Option<HmacSigning> {
        let key = self.parse::<SecretName>(&written.key);
        let header = self.check(&written.header, parse_injectable_header(&written.header.value));
        let message = self.template(&written.message, &[TemplatePart::Signature]);
        let value = match &written.value {
            Some(text) => self.template(text, &[TemplatePart::Body]),
            None => Template::parse("{signature}", &[]).ok(),
        };
        if let (Some(text), Some(value)) = (&written.value, &value)
            && !value.contains(&TemplatePart::Signature)
        {
            self.error(text, "'value' has no {signature}");
        }
        let mut extra_headers = Vec::new();
        for (name, text) in &written.also {
            let name = self.check(text, parse_injectable_header(name));
            let template = self.template(text, &[TemplatePart::Body, TemplatePart::Signature]);
            extra_headers.extend(name.zip(template));
        }
        if let Some(text) =
            written.also.iter().find(|(name, _)| name.eq_ignore_ascii_case(&written.header.value))
        {
            self.error(text.1, "the header of the signature is set by 'value'");
        }
        let algorithm = match written.algorithm.as_ref().map(|spanned| spanned.value) {
            Some(HmacAlgorithm::Sha1) => HashAlgorithm::Sha1,
            Some(HmacAlgorithm::Sha256) | None => HashAlgorithm::Sha256,
            Some(HmacAlgorithm::Sha384) => HashAlgorithm::Sha384,
            Some(HmacAlgorithm::Sha512) => HashAlgorithm::Sha512,
        };
        let encoding = match written.encoding.as_ref().map(|spanned| spanned.value) {
            Some(HmacEncoding::Hex) | None => SignatureEncoding::Hex,
            Some(HmacEncoding::Base64) => SignatureEncoding::Base64,
            Some(HmacEncoding::Base64url) => SignatureEncoding::Base64url,
        };
        Some(HmacSigning {
            key: key?,
            header: header?,
            message: message?,
            value: value?,
            extra_headers,
            algorithm,
            encoding,
        })
    }

    fn template(&mut self, text: &Text, forbidden: &[TemplatePart]) -> Option<Template> {
        self.check(text, Template::parse(&text.value, forbidden))
    }
}

/// Parses a part of a credential scope, such as `eu-west-1` or `s3`.
fn parse_scope(kind: &str, text: &str) -> Result<String, String> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text == "*" || (!text.is_empty() && text.len() <= 64 && text.bytes().all(valid)) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{}' is not {kind}: write it as eu-west-1 or s3, or leave the list out to allow all",
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
    fn signing_secret_is_spendable_but_no_placeholder() {
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
    fn mistakes_have_their_line() {
        for (sign, message) in [
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
            assert!(error.contains(message), "{sign}: {error}");
        }
    }
}
