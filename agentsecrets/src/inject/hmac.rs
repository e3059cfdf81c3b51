//! HMAC signatures over a message that a rule's template describes.

use std::time::UNIX_EPOCH;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;

use super::body::RequestBody;
use super::signer::Signer;
use crate::policy::signing::{HashAlgorithm, HmacSigning, SignatureEncoding};
use crate::policy::template::{Template, TemplatePart};
use crate::types::hex::hex;
use crate::types::rejection::Rejection;
use crate::types::secret::Secret;

/// Signs the request. Returns the body and the signature.
pub(super) async fn sign(
    signer: &Signer<'_>,
    how: &HmacSigning,
    parts: &mut Parts,
    body: RequestBody,
) -> Result<(RequestBody, Secret), Rejection> {
    let (whole, body) = match how.message.contains(&TemplatePart::Body) {
        true => signer.buffer_body(body).await?,
        false => (Bytes::new(), body),
    };
    let key = hmac::Key::new(algorithm(how.algorithm), signer.secret(&how.key)?.expose());
    let message = render(signer, &how.message, parts, &whole, "");
    let tag = hmac::sign(&key, &message);
    let signature = match how.encoding {
        SignatureEncoding::Hex => hex(tag.as_ref()),
        SignatureEncoding::Base64 => STANDARD.encode(tag),
        SignatureEncoding::Base64url => URL_SAFE_NO_PAD.encode(tag),
    };
    let headers = how.extra_headers.iter().map(|(name, template)| (name, template));
    let headers = headers.chain([(&how.header, &how.value)]);
    let mut made = Vec::new();
    for (name, template) in headers {
        let value = render(signer, template, parts, &[], &signature);
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| {
            signer.bad_request(format!("the header '{name}' cannot carry the value of its template"))
        })?;
        value.set_sensitive(true);
        made.push((name.clone(), value));
    }
    for (name, value) in made {
        parts.headers.insert(name, value);
    }
    Ok((body, Secret::new(signature.into_bytes())))
}

fn algorithm(algorithm: HashAlgorithm) -> hmac::Algorithm {
    match algorithm {
        HashAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HashAlgorithm::Sha384 => hmac::HMAC_SHA384,
        HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
    }
}

/// Renders `template` for the request.
fn render(signer: &Signer<'_>, template: &Template, parts: &Parts, body: &[u8], signature: &str) -> Vec<u8> {
    let time = signer.now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut filled = Vec::with_capacity(body.len() + 64);
    for part in template.parts() {
        match part {
            TemplatePart::Text(text) => filled.extend_from_slice(text.as_bytes()),
            TemplatePart::Timestamp => filled.extend_from_slice(time.as_secs().to_string().as_bytes()),
            TemplatePart::TimestampMs => filled.extend_from_slice(time.as_millis().to_string().as_bytes()),
            TemplatePart::Method => filled.extend_from_slice(parts.method.as_str().as_bytes()),
            TemplatePart::Host => {
                filled.extend_from_slice(
                    parts.headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default(),
                );
            }
            TemplatePart::Path => filled.extend_from_slice(parts.uri.path().as_bytes()),
            TemplatePart::Query => filled.extend_from_slice(parts.uri.query().unwrap_or_default().as_bytes()),
            TemplatePart::Body => filled.extend_from_slice(body),
            TemplatePart::Signature => filled.extend_from_slice(signature.as_bytes()),
        }
    }
    filled
}
