//! Signatures by a keyed hash of what a rule's template says.

use std::time::UNIX_EPOCH;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;

use super::Payload;
use super::sign::Signer;
use crate::policy::signing::{Algorithm, Encoding, Hmac};
use crate::policy::template::{Part, Template};
use crate::types::hex::hex;
use crate::types::rejection::Rejection;
use crate::types::secret::Secret;

/// Signs the request of `parts` and `body`; gives the body, and the signature.
pub(super) async fn sign(
    signer: &Signer<'_>,
    how: &Hmac,
    parts: &mut Parts,
    body: Payload,
) -> Result<(Payload, Secret), Rejection> {
    let (whole, body) = match how.message.has(&Part::Body) {
        true => signer.whole(body).await?,
        false => (Bytes::new(), body),
    };
    let key = hmac::Key::new(algorithm(how.algorithm), signer.value(&how.key)?.expose());
    let message = filled(signer, &how.message, parts, &whole, "");
    let tag = hmac::sign(&key, &message);
    let signature = match how.encoding {
        Encoding::Hex => hex(tag.as_ref()),
        Encoding::Base64 => STANDARD.encode(tag),
        Encoding::Base64url => URL_SAFE_NO_PAD.encode(tag),
    };
    let headers = how.also.iter().map(|(name, template)| (name, template));
    let headers = headers.chain([(&how.header, &how.value)]);
    let mut made = Vec::new();
    for (name, template) in headers {
        let value = filled(signer, template, parts, &[], &signature);
        let mut value = HeaderValue::from_bytes(&value)
            .map_err(|_| signer.bad(format!("the header '{name}' cannot carry what its template says")))?;
        value.set_sensitive(true);
        made.push((name.clone(), value));
    }
    for (name, value) in made {
        parts.headers.insert(name, value);
    }
    Ok((body, Secret::new(signature.into_bytes())))
}

fn algorithm(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Algorithm::Sha256 => hmac::HMAC_SHA256,
        Algorithm::Sha384 => hmac::HMAC_SHA384,
        Algorithm::Sha512 => hmac::HMAC_SHA512,
    }
}

/// What `template` says of the request.
fn filled(signer: &Signer<'_>, template: &Template, parts: &Parts, body: &[u8], signature: &str) -> Vec<u8> {
    let time = signer.now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut filled = Vec::with_capacity(body.len() + 64);
    for part in template.parts() {
        match part {
            Part::Text(text) => filled.extend_from_slice(text.as_bytes()),
            Part::Timestamp => filled.extend_from_slice(time.as_secs().to_string().as_bytes()),
            Part::TimestampMs => filled.extend_from_slice(time.as_millis().to_string().as_bytes()),
            Part::Method => filled.extend_from_slice(parts.method.as_str().as_bytes()),
            Part::Host => {
                filled.extend_from_slice(
                    parts.headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default(),
                );
            }
            Part::Path => filled.extend_from_slice(parts.uri.path().as_bytes()),
            Part::Query => filled.extend_from_slice(parts.uri.query().unwrap_or_default().as_bytes()),
            Part::Body => filled.extend_from_slice(body),
            Part::Signature => filled.extend_from_slice(signature.as_bytes()),
        }
    }
    filled
}
