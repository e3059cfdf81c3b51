//! AWS Signature Version 4 and 4A. The client signs with dummy keys; version, region, service and signed
//! headers are taken from its signature, and aws-sigv4 canonicalises and signs the request again.

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

use super::body::RequestBody;
use super::signer::Signer;
use super::urlencoded::encode_component;
use crate::inject::aws_chunks::{self, ResignedChunks};
use crate::inject::aws_signature::{self, ClientSignature, SignaturePlacement, SignatureVersion};
use crate::policy::signing::AwsSigning;
use crate::types::hex::hex;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const REGIONS: HeaderName = HeaderName::from_static("x-amz-region-set");
const HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// Lifetime of a presigned URL, which is used immediately.
const PRESIGNED_EXPIRY: Duration = Duration::from_secs(300);

/// Signs the request. Returns the body and the signature.
pub(super) async fn sign(
    signer: &Signer<'_>,
    aws: &AwsSigning,
    parts: &mut Parts,
    body: RequestBody,
) -> Result<(RequestBody, Secret), Rejection> {
    let client = aws_signature::parse(parts).map_err(|why| signer.bad_request(why))?;
    let client = client.map_or_else(|| default_signature(signer, aws), Ok)?;
    check_allowed(signer, aws, &client)?;
    aws_signature::remove_from_query(parts).map_err(|why| signer.bad_request(why))?;
    for name in [AUTHORIZATION, DATE, TOKEN, REGIONS, HeaderName::from_static("date")] {
        parts.headers.remove(name);
    }
    let (payload, body) = payload_hash(signer, &client, parts, body).await?;
    let identity: Identity = Keys::new(
        signer.secret_text(&aws.access_key)?,
        signer.secret_text(&aws.secret_key)?,
        aws.session_token.as_ref().map(|name| signer.secret_text(name)).transpose()?.map(str::to_owned),
        None,
        "agentsecrets",
    )
    .into();
    let regions = client.regions.join(",");
    let settings = settings(&client, payload.is_sent);
    let params = match client.version {
        SignatureVersion::V4 => v4::SigningParams::builder()
            .identity(&identity)
            .region(&regions)
            .name(&client.service)
            .time(signer.now)
            .settings(settings)
            .build()
            .map(SigningParams::V4)
            .map_err(|_| signer.bad_request(UNSIGNABLE))?,
        SignatureVersion::V4a => v4a::SigningParams::builder()
            .identity(&identity)
            .region_set(&regions)
            .name(&client.service)
            .time(signer.now)
            .settings(settings)
            .build()
            .map(SigningParams::V4a)
            .map_err(|_| signer.bad_request(UNSIGNABLE))?,
    };
    let headers = signed_headers(signer, &client, parts)?;
    let signable = SignableRequest::new(
        parts.method.as_str(),
        parts.uri.to_string(),
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        SignableBody::Precomputed(payload.hash),
    );
    let signable = signable.map_err(|_| signer.bad_request(UNSIGNABLE))?;
    let signed =
        aws_sigv4::http_request::sign(signable, &params).map_err(|_| signer.bad_request(UNSIGNABLE))?;
    let (instructions, signature) = signed.into_parts();
    let (headers, query) = instructions.into_parts();
    for header in headers {
        let mut value = HeaderValue::from_str(header.value()).map_err(|_| signer.bad_request(UNSIGNABLE))?;
        value.set_sensitive(true);
        parts.headers.insert(HeaderName::from_static(header.name()), value);
    }
    if !query.is_empty() {
        parts.uri = append_query(&parts.uri, &query).ok_or_else(|| signer.bad_request(UNSIGNABLE))?;
    }
    let body = match payload.chunks {
        None => body,
        Some(kind) => {
            let key =
                aws_chunks::ChunkSigner::new(kind, identity.clone(), regions, client.service, signer.now);
            RequestBody::Streaming(ResignedChunks::wrap(body.into_body(), key, signature.clone()))
        }
    };
    Ok((body, Secret::new(signature.into_bytes())))
}

const UNSIGNABLE: &str = "the request cannot be signed: its URL, a header or the key is not what AWS signs";

/// Signature parameters for an unsigned request, if the rule allows exactly one region and service.
fn default_signature(signer: &Signer<'_>, aws: &AwsSigning) -> Result<ClientSignature, Rejection> {
    let only = |list: &Option<Vec<String>>| match list.as_deref() {
        Some([one]) => Some(one.clone()),
        _ => None,
    };
    let (Some(region), Some(service)) = (only(&aws.regions), only(&aws.services)) else {
        return Err(signer.bad_request(
            "the request has no AWS signature that says its region and service: let the client sign, with any \
             key, or name one region and one service in the rule's 'sign'",
        ));
    };
    Ok(ClientSignature {
        version: SignatureVersion::V4,
        placement: SignaturePlacement::Header,
        regions: vec![region],
        service,
        signed_headers: Vec::new(),
    })
}

fn check_allowed(signer: &Signer<'_>, aws: &AwsSigning, client: &ClientSignature) -> Result<(), Rejection> {
    let denied = |what: &str, name: &str| {
        signer.reject(ErrorCode::PolicyDenied, format!("this rule does not sign for the {what} '{name}'"))
    };
    if let Some(services) = &aws.services
        && !services.contains(&client.service)
    {
        return Err(denied("service", &client.service));
    }
    match (&aws.regions, client.regions.iter()) {
        (Some(regions), mut claimed) => claimed
            .find(|region| !regions.contains(region))
            .map_or(Ok(()), |region| Err(denied("region", region))),
        (None, _) => Ok(()),
    }
}

/// Hash of the body as it is signed.
struct PayloadHash {
    /// The hash, or its replacement such as `UNSIGNED-PAYLOAD`.
    hash: String,
    /// Whether the hash is sent.
    is_sent: bool,
    /// Signature scheme of signed chunks.
    chunks: Option<aws_chunks::ChunkSigning>,
}

/// Determines the payload hash. A hash that the client sends is used, because the server verifies it, and
/// the body streams; otherwise the body is buffered.
async fn payload_hash(
    signer: &Signer<'_>,
    client: &ClientSignature,
    parts: &mut Parts,
    body: RequestBody,
) -> Result<(PayloadHash, RequestBody), Rejection> {
    let client_hash = parts.headers.remove(HASH);
    let client_hash = client_hash.as_ref().map(|value| value.to_str().unwrap_or_default());
    let in_query = matches!(client.placement, SignaturePlacement::Query { .. });
    // Filling in a secret changed the body.
    let is_changed = signer.grant.secret_uses().iter().any(|secret_use| secret_use.style.is_in_body());
    let mut sent = client.is_for_s3();
    if let Some(client_hash) = client_hash {
        let is_hash = client_hash.len() == 64 && client_hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let chunks = aws_chunks::ChunkSigning::from_payload_hash(client_hash, client.version);
        let is_known = is_hash
            || client_hash == UNSIGNED_PAYLOAD
            || client_hash == aws_chunks::UNSIGNED_TRAILER
            || chunks.is_some();
        if !is_known || (chunks.is_some() && in_query) {
            return Err(
                signer.bad_request("the body's X-Amz-Content-Sha256 is of a kind that cannot be re-signed")
            );
        }
        if !(is_hash && is_changed) {
            return Ok((PayloadHash { hash: client_hash.to_owned(), is_sent: true, chunks }, body));
        }
        sent = true;
    } else if in_query && client.is_for_s3() {
        return Ok((PayloadHash { hash: UNSIGNED_PAYLOAD.to_owned(), is_sent: false, chunks: None }, body));
    }
    let (whole, body) = signer.buffer_body(body).await?;
    Ok((PayloadHash { hash: sha256(&whole), is_sent: sent, chunks: None }, body))
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn settings(client: &ClientSignature, sends_hash: bool) -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.excluded_headers = None;
    if client.is_for_s3() {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    if sends_hash {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if client.service == "iotdevicegateway" {
        settings.session_token_mode = SessionTokenMode::Exclude;
    }
    if let SignaturePlacement::Query { expires } = client.placement {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(expires.min(PRESIGNED_EXPIRY));
    }
    settings
}

/// Selects the headers to sign: those signed by the client that still exist, and all `x-amz-` headers.
fn signed_headers(
    signer: &Signer<'_>,
    client: &ClientSignature,
    parts: &Parts,
) -> Result<Vec<(String, Zeroizing<String>)>, Rejection> {
    let in_query = matches!(client.placement, SignaturePlacement::Query { .. });
    let is_signed = |name: &HeaderName| {
        let own = name.as_str().starts_with("x-amz-") && !in_query;
        let claimed = client.signed_headers.iter().any(|signed| signed == name.as_str());
        let lasts = !matches!(name.as_str(), "te" | "trailer" | "user-agent" | "x-amzn-trace-id");
        name == http::header::HOST || (lasts && (own || claimed))
    };
    let headers = parts.headers.iter().filter(|(name, _)| is_signed(name));
    let headers = headers.map(|(name, value)| {
        let value = std::str::from_utf8(value.as_bytes());
        let value = value.map_err(|_| {
            signer.bad_request(format!("the header '{name}' is not text and cannot be signed"))
        })?;
        Ok((name.as_str().to_owned(), Zeroizing::new(value.to_owned())))
    });
    headers.collect()
}

/// Appends the signature's parameters to the query.
fn append_query(uri: &Uri, more: &[(&str, std::borrow::Cow<'_, str>)]) -> Option<Uri> {
    let own = uri.query().filter(|query| !query.is_empty()).map(str::to_owned);
    let more = more.iter().map(|(name, value)| format!("{name}={}", *encode_component(value.as_bytes())));
    let query: Vec<String> = own.into_iter().chain(more).collect();
    let path = Zeroizing::new(format!("{}?{}", uri.path(), query.join("&")));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path.as_bytes()).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
