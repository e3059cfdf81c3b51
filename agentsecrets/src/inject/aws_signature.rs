//! Parses the AWS signature of a client: version, region, service and signed headers. The signature
//! itself is not verified, because the client has no real key.

use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};

use super::urlencoded::decode;

/// Parameters of a client's signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientSignature {
    pub(super) version: SignatureVersion,
    pub(super) placement: SignaturePlacement,
    /// One region, or the region set of version 4A.
    pub(super) regions: Vec<String>,
    pub(super) service: String,
    /// Names of the signed headers, in lower case.
    pub(super) signed_headers: Vec<String>,
}

/// Version of AWS Signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureVersion {
    V4,
    V4a,
}

/// Location of the signature in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignaturePlacement {
    Header,
    Query { expires: Duration },
}

impl ClientSignature {
    /// Whether the service is S3, which signs the path unnormalised and sends the body's hash.
    pub(super) fn is_for_s3(&self) -> bool {
        matches!(self.service.as_str(), "s3" | "s3express" | "s3-outposts" | "s3-object-lambda")
    }
}

const NOT_AWS: &str = "the request authenticates otherwise than by an AWS signature of version 4 or 4A, and this rule \
                       signs: leave the client to sign with any key";
const MALFORMED: &str = "the request's AWS signature is damaged: it must name key, date, region and service, as clients \
                       write it";

/// Parses the signature of a request; `None` if there is none.
pub(super) fn parse(parts: &Parts) -> Result<Option<ClientSignature>, &'static str> {
    let query = parameters(parts);
    let of_query =
        |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (header, second) = (headers.next(), headers.next());
    if second.is_some() || (header.is_some() && of_query("X-Amz-Algorithm").is_some()) {
        return Err("the request has more than one signature");
    }
    let set_of_header = || parts.headers.get("x-amz-region-set").and_then(|value| value.to_str().ok());
    if let Some(header) = header {
        let text = header.to_str().map_err(|_| NOT_AWS)?;
        let (algorithm, rest) = text.split_once(' ').ok_or(NOT_AWS)?;
        let field = |name: &str| {
            let mut fields = rest.split(',').filter_map(|field| field.trim().split_once('='));
            fields.find(|(known, _)| *known == name).map(|(_, value)| value).ok_or(MALFORMED)
        };
        let version = parse_version(algorithm)?;
        let (credential, signed) = (field("Credential")?, field("SignedHeaders")?);
        return parse_scope(version, SignaturePlacement::Header, credential, signed, set_of_header())
            .map(Some);
    }
    let Some(algorithm) = of_query("X-Amz-Algorithm") else { return Ok(None) };
    let field = |name| of_query(name).ok_or(MALFORMED);
    let expires = field("X-Amz-Expires")?.parse().map_err(|_| MALFORMED)?;
    let form = SignaturePlacement::Query {
        expires: Duration::from_secs(expires).clamp(Duration::from_secs(1), MAX_EXPIRY),
    };
    let (credential, signed) = (field("X-Amz-Credential")?, field("X-Amz-SignedHeaders")?);
    parse_scope(parse_version(algorithm)?, form, credential, signed, of_query("X-Amz-Region-Set")).map(Some)
}

/// Longest lifetime that AWS allows for a presigned URL.
const MAX_EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Removes the signature from the query.
pub(super) fn remove_from_query(parts: &mut Parts) -> Result<(), &'static str> {
    let Some(query) = parts.uri.query() else { return Ok(()) };
    let ours = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
        "X-Amz-Security-Token",
        "X-Amz-Region-Set",
    ];
    let is_ours = |pair: &&str| {
        let name = decode(pair.split('=').next().unwrap_or_default().as_bytes());
        ours.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
    };
    let remaining: Vec<&str> = query.split('&').filter(|pair| !is_ours(pair)).collect();
    let path = match remaining.as_slice() {
        [] => parts.uri.path().to_owned(),
        remaining => format!("{}?{}", parts.uri.path(), remaining.join("&")),
    };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| MALFORMED)?);
    parts.uri = Uri::from_parts(uri).map_err(|_| MALFORMED)?;
    Ok(())
}

fn parameters(parts: &Parts) -> Vec<(String, String)> {
    let text = |text: &str| String::from_utf8_lossy(&decode(text.as_bytes())).into_owned();
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (text(name), text(value))).collect()
}

fn parse_version(algorithm: &str) -> Result<SignatureVersion, &'static str> {
    match algorithm {
        "AWS4-HMAC-SHA256" => Ok(SignatureVersion::V4),
        "AWS4-ECDSA-P256-SHA256" => Ok(SignatureVersion::V4a),
        _ => Err(NOT_AWS),
    }
}

/// Parses `KEY/DATE/REGION/SERVICE/aws4_request`, which has no region in version 4A. A key may contain
/// slashes.
fn parse_scope(
    version: SignatureVersion,
    form: SignaturePlacement,
    credential: &str,
    signed: &str,
    set: Option<&str>,
) -> Result<ClientSignature, &'static str> {
    let mut fields = credential.rsplit('/');
    let end = fields.next();
    let service = fields.next().filter(|service| is_scope_part(service)).ok_or(MALFORMED)?;
    let regions: Vec<String> = match version {
        SignatureVersion::V4 => fields.next().into_iter().map(str::to_owned).collect(),
        SignatureVersion::V4a => {
            set.ok_or(MALFORMED)?.split(',').map(|region| region.trim().to_owned()).collect()
        }
    };
    let date = fields.next();
    let names_key = fields.next().is_some();
    let is_region = |region: &String| {
        is_scope_part(region) || (version == SignatureVersion::V4a && is_region_pattern(region))
    };
    let is_date = date.is_some_and(|date| date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit()));
    if end != Some("aws4_request")
        || !is_date
        || !names_key
        || regions.is_empty()
        || !regions.iter().all(is_region)
    {
        return Err(MALFORMED);
    }
    let signed: Vec<String> = signed.split(';').map(str::to_ascii_lowercase).collect();
    if signed.len() > 100 || !signed.iter().all(|name| name.parse::<HeaderName>().is_ok()) {
        return Err(MALFORMED);
    }
    Ok(ClientSignature {
        version,
        placement: form,
        regions,
        service: service.to_owned(),
        signed_headers: signed,
    })
}

fn is_scope_part(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(valid)
}

/// A region set may contain `us-*`.
fn is_region_pattern(text: &str) -> bool {
    text == "*" || text.strip_suffix('*').is_some_and(is_scope_part)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn parse_request(uri: &str, headers: &[(&str, &str)]) -> Result<Option<ClientSignature>, &'static str> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        parse(&request.body(()).unwrap().into_parts().0)
    }

    fn authorization(text: &str) -> Result<Option<ClientSignature>, &'static str> {
        parse_request("/", &[("authorization", text)])
    }

    const SIGNED: &str = "SignedHeaders=host;x-amz-date, Signature=00";

    #[test]
    fn signature_parameters_are_parsed() {
        for key in ["AKIDEXAMPLE", "AS_SECRET_AWS_ACCESS_KEY_ID", "a/key/with/slashes"] {
            let text =
                format!("AWS4-HMAC-SHA256 Credential={key}/20261125/eu-west-1/s3/aws4_request, {SIGNED}");
            let client = authorization(&text).unwrap().unwrap();
            assert_eq!(
                (client.version, client.placement),
                (SignatureVersion::V4, SignaturePlacement::Header)
            );
            assert_eq!((client.regions, client.service.as_str()), (vec!["eu-west-1".to_owned()], "s3"));
            assert_eq!(client.signed_headers, ["host", "x-amz-date"]);
        }
        let text = format!("AWS4-ECDSA-P256-SHA256 Credential=K/20261125/s3/aws4_request,{SIGNED}");
        let client = parse_request("/", &[("authorization", &text), ("x-amz-region-set", "us-*, eu-west-1")])
            .unwrap()
            .unwrap();
        assert_eq!(
            (client.version, client.regions),
            (SignatureVersion::V4a, vec!["us-*".to_owned(), "eu-west-1".to_owned()])
        );
    }

    #[test]
    fn presigned_url_is_parsed_and_its_signature_removed() {
        let uri = "/a%20b?x=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K%2F20261125%2Fus-east-1%2Fs3%2F\
                   aws4_request&X-Amz-Date=20261125T000000Z&X-Amz-Expires=9999999&X-Amz-SignedHeaders=host&\
                   X-Amz-Signature=00&uploads";
        let client = parse_request(uri, &[]).unwrap().unwrap();
        assert_eq!(client.placement, SignaturePlacement::Query { expires: MAX_EXPIRY });
        let mut parts = Request::get(uri).body(()).unwrap().into_parts().0;
        remove_from_query(&mut parts).unwrap();
        assert_eq!(parts.uri, "/a%20b?x=1&uploads");
    }

    #[test]
    fn missing_or_malformed_signature_is_rejected() {
        assert_eq!(parse_request("/?a=b", &[]), Ok(None));
        assert_eq!(authorization("Bearer x"), Err(NOT_AWS));
        assert_eq!(authorization("AWS AKID:signature"), Err(NOT_AWS));
        for credential in [
            "K/20261125/us-east-1/aws4_request",
            "K/2026112/us-east-1/s3/aws4_request",
            "K/20261125/US/s3/aws4_request",
            "20261125/us-east-1/s3/aws4_request",
            "K/20261125/us-east-1/s3/aws5_request",
            "",
        ] {
            let text = format!("AWS4-HMAC-SHA256 Credential={credential}, {SIGNED}");
            assert_eq!(authorization(&text), Err(MALFORMED), "{credential}");
        }
        assert!(parse_request("/?X-Amz-Algorithm=AWS4-HMAC-SHA256", &[("authorization", "x y")]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_signatures_never_panic(
            value in prop_oneof![
                "AWS4-HMAC-SHA256 Credential=[ -~]{0,60}, SignedHeaders=[ -~]{0,30}",
                "AWS4-[ -~]{0,80}",
            ],
            query in "(X-Amz-[A-Za-z]{0,12}=[a-z0-9%/]{0,20}&){0,6}",
        ) {
            let uri = format!("/?{query}");
            if let Ok(request) = Request::builder().uri(&uri).header("authorization", &value).body(()) {
                let _ = parse(&request.into_parts().0);
            }
            if let Ok(request) = Request::builder().uri(&uri).body(()) {
                let mut parts = request.into_parts().0;
                let _ = parse(&parts);
                remove_from_query(&mut parts).unwrap();
                prop_assert_eq!(parse(&parts), Ok(None));
            }
        }
    }
}
