//! Signs the request as its rule says, after all injections. The client's own signature is not trusted
//! and does not leave.

use std::time::SystemTime;

use super::body::BodyBudget;
use super::outbound::Outbound;
use super::signer::Signer;
use super::{hmac, sigv4};
use crate::credentials::resolved::Credentials;
use crate::policy::grant::Grant;
use crate::policy::signing::Signing;
use crate::redact::Redactor;
use crate::types::rejection::Rejection;

/// Signs `outbound` if `grant` says so, and makes the redactor search the response for the signature.
/// Fails with `bad_request` if the request cannot be signed, `policy_denied` if the rule does not sign
/// it, and `body_too_large` if its body exceeds the buffer.
pub(crate) async fn sign(
    outbound: Outbound,
    redactor: Redactor,
    grant: &Grant,
    credentials: &Credentials,
    body_budget: &BodyBudget,
) -> Result<(Outbound, Redactor), Rejection> {
    let Some(signing) = grant.signing() else { return Ok((outbound, redactor)) };
    let Outbound { request, target, private_addresses, isolation, tls, notes } = outbound;
    let signer = Signer { grant, credentials, budget: body_budget, now: SystemTime::now() };
    let (mut parts, body) = request.into_parts();
    let (body, signature) = match &**signing {
        Signing::Aws(aws) => sigv4::sign(&signer, aws, &mut parts, body).await?,
        Signing::Hmac(how) => hmac::sign(&signer, how, &mut parts, body).await?,
    };
    let request = http::Request::from_parts(parts, body);
    Ok((Outbound { request, target, private_addresses, isolation, tls, notes }, redactor.and(&signature)))
}
