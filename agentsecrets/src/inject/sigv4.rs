//! AWS Signature Version 4 and 4A, made anew: a client signs with dummy keys, and of what it says we take
//! the scheme, the region, the service and which headers are signed. The library canonicalises and signs.

use std::time::Duration;

use aws_credential_types::Credentials as Keys;
use aws_lc_rs::digest;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest,
    SignatureLocation, SigningParams, SigningSettings, UriPathNormalizationMode,
};
use aws_sigv4::sign::{v4, v4a};
use aws_smithy_runtime_api::client::identity::Identity;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use zeroize::Zeroizing;

use super::Payload;
use super::sign::Signer;
use super::url::encoded;
use crate::inject::aws_chunks::{self, Chunks};
use crate::inject::aws_signature::{self, Claim, Form, Scheme};
use crate::policy::signing::Aws;
use crate::types::hex::hex;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const REGIONS: HeaderName = HeaderName::from_static("x-amz-region-set");
const HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// How long a URL is good that is signed to be used at once.
const AT_ONCE: Duration = Duration::from_secs(300);

/// Signs the request of `parts` and `body`; gives the body, and the signature.
pub(super) async fn sign(
    signer: &Signer<'_>,
    aws: &Aws,
    parts: &mut Parts,
    body: Payload,
) -> Result<(Payload, Secret), Rejection> {
    let claim = aws_signature::read(parts).map_err(|why| signer.bad(why))?;
    let claim = claim.map_or_else(|| unclaimed(signer, aws), Ok)?;
    allowed(signer, aws, &claim)?;
    aws_signature::take(parts).map_err(|why| signer.bad(why))?;
    for name in [AUTHORIZATION, DATE, TOKEN, REGIONS, HeaderName::from_static("date")] {
        parts.headers.remove(name);
    }
    let (payload, body) = payload(signer, &claim, parts, body).await?;
    let identity: Identity = Keys::new(
        signer.text(&aws.access_key)?,
        signer.text(&aws.secret_key)?,
        aws.session_token.as_ref().map(|name| signer.text(name)).transpose()?.map(str::to_owned),
        None,
        "agentsecrets",
    )
    .into();
    let regions = claim.regions.join(",");
    let settings = settings(&claim, payload.sent);
    let params = match claim.scheme {
        Scheme::V4 => v4::SigningParams::builder()
            .identity(&identity)
            .region(&regions)
            .name(&claim.service)
            .time(signer.now)
            .settings(settings)
            .build()
            .map(SigningParams::V4)
            .map_err(|_| signer.bad(UNSIGNABLE))?,
        Scheme::V4a => v4a::SigningParams::builder()
            .identity(&identity)
            .region_set(&regions)
            .name(&claim.service)
            .time(signer.now)
            .settings(settings)
            .build()
            .map(SigningParams::V4a)
            .map_err(|_| signer.bad(UNSIGNABLE))?,
    };
    let headers = signed_headers(signer, &claim, parts)?;
    let signable = SignableRequest::new(
        parts.method.as_str(),
        parts.uri.to_string(),
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        SignableBody::Precomputed(payload.hash),
    );
    let signable = signable.map_err(|_| signer.bad(UNSIGNABLE))?;
    let signed = aws_sigv4::http_request::sign(signable, &params).map_err(|_| signer.bad(UNSIGNABLE))?;
    let (instructions, signature) = signed.into_parts();
    let (headers, query) = instructions.into_parts();
    for header in headers {
        let mut value = HeaderValue::from_str(header.value()).map_err(|_| signer.bad(UNSIGNABLE))?;
        value.set_sensitive(true);
        parts.headers.insert(HeaderName::from_static(header.name()), value);
    }
    if !query.is_empty() {
        parts.uri = with_query(&parts.uri, &query).ok_or_else(|| signer.bad(UNSIGNABLE))?;
    }
    let body = match payload.chunks {
        None => body,
        Some(kind) => {
            let key = aws_chunks::Key::new(kind, identity.clone(), regions, claim.service, signer.now);
            Payload::Streaming(Chunks::signed(body.into_body(), key, signature.clone()))
        }
    };
    Ok((body, Secret::new(signature.into_bytes())))
}

const UNSIGNABLE: &str = "the request cannot be signed: its URL, a header or the key is not what AWS signs";

/// What is signed where the client signs nothing: possible where the rule leaves no choice.
fn unclaimed(signer: &Signer<'_>, aws: &Aws) -> Result<Claim, Rejection> {
    let only = |list: &Option<Vec<String>>| match list.as_deref() {
        Some([one]) => Some(one.clone()),
        _ => None,
    };
    let (Some(region), Some(service)) = (only(&aws.regions), only(&aws.services)) else {
        return Err(signer.bad(
            "the request has no AWS signature that says its region and service: let the client sign, with any \
             key, or name one region and one service in the rule's 'sign'",
        ));
    };
    Ok(Claim { scheme: Scheme::V4, form: Form::Header, regions: vec![region], service, signed: Vec::new() })
}

fn allowed(signer: &Signer<'_>, aws: &Aws, claim: &Claim) -> Result<(), Rejection> {
    let denied = |what: &str, name: &str| {
        signer.refuse(ErrorCode::PolicyDenied, format!("this rule does not sign for the {what} '{name}'"))
    };
    if let Some(services) = &aws.services
        && !services.contains(&claim.service)
    {
        return Err(denied("service", &claim.service));
    }
    match (&aws.regions, claim.regions.iter()) {
        (Some(regions), mut claimed) => claimed
            .find(|region| !regions.contains(region))
            .map_or(Ok(()), |region| Err(denied("region", region))),
        (None, _) => Ok(()),
    }
}

/// What is signed of a body.
struct Hashed {
    /// Its hash, or what stands for it.
    hash: String,
    /// Whether the hash is sent.
    sent: bool,
    /// How its chunks are signed, where they are.
    chunks: Option<aws_chunks::Kind>,
}

/// A hash that the client gives is taken, since the server checks it; so the body streams. Without one the
/// body is held whole.
async fn payload(
    signer: &Signer<'_>,
    claim: &Claim,
    parts: &mut Parts,
    body: Payload,
) -> Result<(Hashed, Payload), Rejection> {
    let given = parts.headers.remove(HASH);
    let given = given.as_ref().map(|value| value.to_str().unwrap_or_default());
    let in_query = matches!(claim.form, Form::Query { .. });
    // What was filled in made it another body.
    let is_changed = signer.grant.spends().iter().any(|spend| spend.style.is_in_body());
    let mut sent = claim.is_s3();
    if let Some(given) = given {
        let is_hash = given.len() == 64 && given.bytes().all(|byte| byte.is_ascii_hexdigit());
        let chunks = aws_chunks::Kind::of(given, claim.scheme);
        let is_known =
            is_hash || given == UNSIGNED || given == aws_chunks::UNSIGNED_TRAILER || chunks.is_some();
        if !is_known || (chunks.is_some() && in_query) {
            return Err(signer.bad("the body's X-Amz-Content-Sha256 is of a kind that cannot be signed anew"));
        }
        if !(is_hash && is_changed) {
            return Ok((Hashed { hash: given.to_owned(), sent: true, chunks }, body));
        }
        sent = true;
    } else if in_query && claim.is_s3() {
        return Ok((Hashed { hash: UNSIGNED.to_owned(), sent: false, chunks: None }, body));
    }
    let (whole, body) = signer.whole(body).await?;
    Ok((Hashed { hash: sha256(&whole), sent, chunks: None }, body))
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn settings(claim: &Claim, sends_hash: bool) -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.excluded_headers = None;
    if claim.is_s3() {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    if sends_hash {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if claim.service == "iotdevicegateway" {
        settings.session_token_mode = SessionTokenMode::Exclude;
    }
    if let Form::Query { expires } = claim.form {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(expires.min(AT_ONCE));
    }
    settings
}

/// The headers that are signed: those that the client signed and that are still there, and all of AWS's own.
fn signed_headers(
    signer: &Signer<'_>,
    claim: &Claim,
    parts: &Parts,
) -> Result<Vec<(String, Zeroizing<String>)>, Rejection> {
    let in_query = matches!(claim.form, Form::Query { .. });
    let is_signed = |name: &HeaderName| {
        let own = name.as_str().starts_with("x-amz-") && !in_query;
        let claimed = claim.signed.iter().any(|signed| signed == name.as_str());
        let lasts = !matches!(name.as_str(), "te" | "trailer" | "user-agent" | "x-amzn-trace-id");
        name == http::header::HOST || (lasts && (own || claimed))
    };
    let headers = parts.headers.iter().filter(|(name, _)| is_signed(name));
    let headers = headers.map(|(name, value)| {
        let value = std::str::from_utf8(value.as_bytes());
        let value =
            value.map_err(|_| signer.bad(format!("the header '{name}' is no text, and cannot be signed")))?;
        Ok((name.as_str().to_owned(), Zeroizing::new(value.to_owned())))
    });
    headers.collect()
}

/// `uri` with the parameters of a signature behind its own.
fn with_query(uri: &Uri, more: &[(&str, std::borrow::Cow<'_, str>)]) -> Option<Uri> {
    let own = uri.query().filter(|query| !query.is_empty()).map(str::to_owned);
    let more = more.iter().map(|(name, value)| format!("{name}={}", *encoded(value.as_bytes())));
    let query: Vec<String> = own.into_iter().chain(more).collect();
    let path = Zeroizing::new(format!("{}?{}", uri.path(), query.join("&")));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path.as_bytes()).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
