//! The last thing that is done to a request before it leaves: the rule's signature, over all that was put
//! in. Of the client's own signature nothing is believed, and nothing stays.

use std::time::SystemTime;

use bytes::Bytes;

use super::body::held;
use super::{Outbound, Payload, Room, hmac, sigv4};
use crate::credentials::resolved::Credentials;
use crate::policy::grant::Grant;
use crate::policy::signing::Signing;
use crate::redact::Redactor;
use crate::types::body::{BodyError, full};
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::types::target::Target;

/// The largest body that is held whole to be signed, in bytes, where the rule says nothing.
const MOST: u64 = 16 << 20;

/// Signs `outbound` as `grant` says, and lets the redactor search its answer for the signature. Refused with
/// `bad_request` where what the client asks for cannot be signed, `policy_denied` where it may not be, and
/// `body_too_large` where a body must be held whole and is too large for that.
pub async fn sign(
    outbound: Outbound,
    redactor: Redactor,
    grant: &Grant,
    credentials: &Credentials,
    room: &Room,
) -> Result<(Outbound, Redactor), Rejection> {
    let Some(signing) = grant.signing() else { return Ok((outbound, redactor)) };
    let Outbound { request, target, private, isolation, proof, notes } = outbound;
    let signer = Signer { target: &target, grant, credentials, room, now: SystemTime::now() };
    let (mut parts, body) = request.into_parts();
    let (body, signature) = match &**signing {
        Signing::Aws(aws) => sigv4::sign(&signer, aws, &mut parts, body).await?,
        Signing::Hmac(how) => hmac::sign(&signer, how, &mut parts, body).await?,
    };
    let request = http::Request::from_parts(parts, body);
    Ok((Outbound { request, target, private, isolation, proof, notes }, redactor.and(&signature)))
}

/// What signing one request takes.
pub(super) struct Signer<'a> {
    pub(super) target: &'a Target,
    pub(super) grant: &'a Grant,
    pub(super) credentials: &'a Credentials,
    pub(super) room: &'a Room,
    pub(super) now: SystemTime,
}

impl Signer<'_> {
    /// The value of `name`.
    pub(super) fn value(&self, name: &SecretName) -> Result<&Secret, Rejection> {
        let missing =
            || self.refuse(ErrorCode::SecretMissing, format!("secret '{name}' not found in keychain"));
        self.credentials.get(name).ok_or_else(missing)
    }

    /// The same, where it must be text.
    pub(super) fn text(&self, name: &SecretName) -> Result<&str, Rejection> {
        std::str::from_utf8(self.value(name)?.expose())
            .map_err(|_| self.bad(format!("secret '{name}' is no text, as a signature needs it")))
    }

    /// All of `body`, which must not be too large for that, and the body again.
    pub(super) async fn whole(&self, body: Payload) -> Result<(Bytes, Payload), Rejection> {
        let body = match body {
            Payload::Streaming(body) => body,
            read => return Ok((read.bytes().cloned().unwrap_or_default(), read)),
        };
        let most = self.grant.max_body().unwrap_or(MOST);
        match held(body, most, self.room).await {
            Ok(whole) => Ok((whole.clone(), Payload::Streaming(full(whole)))),
            Err(BodyError::TooLarge) => Err(self.refuse(
                ErrorCode::BodyTooLarge,
                format!(
                    "the body is larger than {most} bytes and must be held whole to be signed: send less, send \
                     its hash in X-Amz-Content-Sha256 where the service knows that, or set 'max_body' in the rule"
                ),
            )),
            Err(error) => Err(self.bad(format!("the request broke off: {error}"))),
        }
    }

    pub(super) fn bad(&self, message: impl Into<String>) -> Rejection {
        self.refuse(ErrorCode::BadRequest, message)
    }

    pub(super) fn refuse(&self, slug: ErrorCode, message: impl Into<String>) -> Rejection {
        Rejection::new(slug, &self.target.host, message).by_rule(&**self.grant.rule())
    }
}
