//! The context in which a request is signed: its secrets, its body and its rejections.

use std::time::SystemTime;

use bytes::Bytes;

use super::body::{BodyBudget, RequestBody, buffer};
use crate::credentials::resolved::Credentials;
use crate::policy::grant::Grant;
use crate::types::body::{BodyError, full};
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;

/// Maximum size of a body that is buffered for signing, in bytes, unless the rule sets one.
const DEFAULT_MAX_SIGNED_BODY: u64 = 16 << 20;

/// Context for signing one request.
pub(super) struct Signer<'a> {
    pub(super) grant: &'a Grant,
    pub(super) credentials: &'a Credentials,
    pub(super) budget: &'a BodyBudget,
    pub(super) now: SystemTime,
}

impl Signer<'_> {
    pub(super) fn secret(&self, name: &SecretName) -> Result<&Secret, Rejection> {
        let missing =
            || self.reject(ErrorCode::SecretMissing, format!("secret '{name}' not found in keychain"));
        self.credentials.get(name).ok_or_else(missing)
    }

    /// Returns a secret that must be text.
    pub(super) fn secret_text(&self, name: &SecretName) -> Result<&str, Rejection> {
        std::str::from_utf8(self.secret(name)?.expose())
            .map_err(|_| self.bad_request(format!("secret '{name}' is not text, which a signature needs")))
    }

    /// Buffers `body`. Returns its bytes, and the body again.
    pub(super) async fn buffer_body(&self, body: RequestBody) -> Result<(Bytes, RequestBody), Rejection> {
        let body = match body {
            RequestBody::Streaming(body) => body,
            read => return Ok((read.bytes().cloned().unwrap_or_default(), read)),
        };
        let max_size = self.grant.max_body().unwrap_or(DEFAULT_MAX_SIGNED_BODY);
        match buffer(body, max_size, self.budget).await {
            Ok(whole) => Ok((whole.clone(), RequestBody::Streaming(full(whole)))),
            Err(BodyError::TooLarge) => Err(self.reject(
                ErrorCode::BodyTooLarge,
                format!(
                    "the body is larger than {max_size} bytes and must be held whole to be signed: send less, send \
                     its hash in X-Amz-Content-Sha256 where the service knows that, or set 'max_body' in the rule"
                ),
            )),
            Err(error) => Err(self.bad_request(format!("the request broke off: {error}"))),
        }
    }

    pub(super) fn bad_request(&self, message: impl Into<String>) -> Rejection {
        self.reject(ErrorCode::BadRequest, message)
    }

    pub(super) fn reject(&self, slug: ErrorCode, message: impl Into<String>) -> Rejection {
        Rejection::new(slug, message).by_rule(&**self.grant.rule())
    }
}
