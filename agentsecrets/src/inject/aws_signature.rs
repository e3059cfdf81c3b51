//! What a client's AWS signature says of itself: which scheme, for which region and service, over which
//! headers. That it is right is of no interest: whoever made it has no key.

use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};

use super::pairs::decoded;

/// A signature's own words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) scheme: Scheme,
    pub(super) form: Form,
    /// One region, or version 4A's set.
    pub(super) regions: Vec<String>,
    pub(super) service: String,
    /// The headers that are signed, in lower case.
    pub(super) signed: Vec<String>,
}

/// Which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    V4,
    V4a,
}

/// Where the signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Header,
    Query { expires: Duration },
}

impl Claim {
    /// Whether the path is signed as it is, and the body's hash is sent.
    pub(super) fn is_s3(&self) -> bool {
        matches!(self.service.as_str(), "s3" | "s3express" | "s3-outposts" | "s3-object-lambda")
    }
}

const NOT_AWS: &str = "the request authenticates otherwise than by an AWS signature of version 4 or 4A, and this rule \
                       signs: leave the client to sign with any key";
const DAMAGED: &str = "the request's AWS signature is damaged: it must name key, date, region and service, as clients \
                       write it";

/// Reads the signature of a request; nothing where it has none.
pub(super) fn read(parts: &Parts) -> Result<Option<Claim>, &'static str> {
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
            fields.find(|(known, _)| *known == name).map(|(_, value)| value).ok_or(DAMAGED)
        };
        let scheme = scheme(algorithm)?;
        let (credential, signed) = (field("Credential")?, field("SignedHeaders")?);
        return claim(scheme, Form::Header, credential, signed, set_of_header()).map(Some);
    }
    let Some(algorithm) = of_query("X-Amz-Algorithm") else { return Ok(None) };
    let field = |name| of_query(name).ok_or(DAMAGED);
    let expires = field("X-Amz-Expires")?.parse().map_err(|_| DAMAGED)?;
    let form = Form::Query { expires: Duration::from_secs(expires).clamp(Duration::from_secs(1), WEEK) };
    let (credential, signed) = (field("X-Amz-Credential")?, field("X-Amz-SignedHeaders")?);
    claim(scheme(algorithm)?, form, credential, signed, of_query("X-Amz-Region-Set")).map(Some)
}

/// The longest that AWS lets a URL be good for.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Takes the signature out of the query.
pub(super) fn take(parts: &mut Parts) -> Result<(), &'static str> {
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
        let name = decoded(pair.split('=').next().unwrap_or_default().as_bytes());
        ours.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
    };
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_ours(pair)).collect();
    let path = match kept.as_slice() {
        [] => parts.uri.path().to_owned(),
        kept => format!("{}?{}", parts.uri.path(), kept.join("&")),
    };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| DAMAGED)?);
    parts.uri = Uri::from_parts(uri).map_err(|_| DAMAGED)?;
    Ok(())
}

fn parameters(parts: &Parts) -> Vec<(String, String)> {
    let text = |text: &str| String::from_utf8_lossy(&decoded(text.as_bytes())).into_owned();
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (text(name), text(value))).collect()
}

fn scheme(algorithm: &str) -> Result<Scheme, &'static str> {
    match algorithm {
        "AWS4-HMAC-SHA256" => Ok(Scheme::V4),
        "AWS4-ECDSA-P256-SHA256" => Ok(Scheme::V4a),
        _ => Err(NOT_AWS),
    }
}

/// `KEY/DATE/REGION/SERVICE/aws4_request`, without the region in version 4A. A key may hold slashes.
fn claim(
    scheme: Scheme,
    form: Form,
    credential: &str,
    signed: &str,
    set: Option<&str>,
) -> Result<Claim, &'static str> {
    let mut fields = credential.rsplit('/');
    let end = fields.next();
    let service = fields.next().filter(|service| is_scope(service)).ok_or(DAMAGED)?;
    let regions: Vec<String> = match scheme {
        Scheme::V4 => fields.next().into_iter().map(str::to_owned).collect(),
        Scheme::V4a => set.ok_or(DAMAGED)?.split(',').map(|region| region.trim().to_owned()).collect(),
    };
    let date = fields.next();
    let names_key = fields.next().is_some();
    let is_region =
        |region: &String| is_scope(region) || (scheme == Scheme::V4a && is_region_pattern(region));
    let is_date = date.is_some_and(|date| date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit()));
    if end != Some("aws4_request")
        || !is_date
        || !names_key
        || regions.is_empty()
        || !regions.iter().all(is_region)
    {
        return Err(DAMAGED);
    }
    let signed: Vec<String> = signed.split(';').map(str::to_ascii_lowercase).collect();
    if signed.len() > 100 || !signed.iter().all(|name| name.parse::<HeaderName>().is_ok()) {
        return Err(DAMAGED);
    }
    Ok(Claim { scheme, form, regions, service: service.to_owned(), signed })
}

fn is_scope(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(valid)
}

/// A set may say `us-*`.
fn is_region_pattern(text: &str) -> bool {
    text == "*" || text.strip_suffix('*').is_some_and(is_scope)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn of(uri: &str, headers: &[(&str, &str)]) -> Result<Option<Claim>, &'static str> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(&request.body(()).unwrap().into_parts().0)
    }

    fn authorization(text: &str) -> Result<Option<Claim>, &'static str> {
        of("/", &[("authorization", text)])
    }

    const SIGNED: &str = "SignedHeaders=host;x-amz-date, Signature=00";

    #[test]
    fn scheme_region_service_and_signed_headers_are_read_whatever_the_key_is() {
        for key in ["AKIDEXAMPLE", "AS_SECRET_AWS_ACCESS_KEY_ID", "a/key/with/slashes"] {
            let text =
                format!("AWS4-HMAC-SHA256 Credential={key}/20261125/eu-west-1/s3/aws4_request, {SIGNED}");
            let claim = authorization(&text).unwrap().unwrap();
            assert_eq!((claim.scheme, claim.form), (Scheme::V4, Form::Header));
            assert_eq!((claim.regions, claim.service.as_str()), (vec!["eu-west-1".to_owned()], "s3"));
            assert_eq!(claim.signed, ["host", "x-amz-date"]);
        }
        let text = format!("AWS4-ECDSA-P256-SHA256 Credential=K/20261125/s3/aws4_request,{SIGNED}");
        let claim =
            of("/", &[("authorization", &text), ("x-amz-region-set", "us-*, eu-west-1")]).unwrap().unwrap();
        assert_eq!(
            (claim.scheme, claim.regions),
            (Scheme::V4a, vec!["us-*".to_owned(), "eu-west-1".to_owned()])
        );
    }

    #[test]
    fn a_signed_url_is_read_and_its_signature_taken_out() {
        let uri = "/a%20b?x=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K%2F20261125%2Fus-east-1%2Fs3%2F\
                   aws4_request&X-Amz-Date=20261125T000000Z&X-Amz-Expires=9999999&X-Amz-SignedHeaders=host&\
                   X-Amz-Signature=00&uploads";
        let claim = of(uri, &[]).unwrap().unwrap();
        assert_eq!(claim.form, Form::Query { expires: WEEK });
        let mut parts = Request::get(uri).body(()).unwrap().into_parts().0;
        take(&mut parts).unwrap();
        assert_eq!(parts.uri, "/a%20b?x=1&uploads");
    }

    #[test]
    fn what_is_no_signature_or_a_damaged_one_is_refused() {
        assert_eq!(of("/?a=b", &[]), Ok(None));
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
            assert_eq!(authorization(&text), Err(DAMAGED), "{credential}");
        }
        assert!(of("/?X-Amz-Algorithm=AWS4-HMAC-SHA256", &[("authorization", "x y")]).is_err());
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
                let _ = read(&request.into_parts().0);
            }
            if let Ok(request) = Request::builder().uri(&uri).body(()) {
                let mut parts = request.into_parts().0;
                let _ = read(&parts);
                take(&mut parts).unwrap();
                prop_assert_eq!(read(&parts), Ok(None));
            }
        }
    }
}
