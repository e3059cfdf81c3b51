//! Captures and strips the values that a rule names, before the response is searched. A captured value
//! becomes a secret of ours with a placeholder in its place; a stripped value is removed. A response whose
//! JSON body the rule reads is buffered up to a limit, and refused beyond it.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, ETAG, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};

use super::content_coding::{DIGESTS, codings, decoded};
use crate::json_values::find;
use agentsecrets_types::body::{Body, full};
use agentsecrets_types::hop_by_hop;
use agentsecrets_types::host::Host;
use agentsecrets_types::name::SecretName;
use agentsecrets_types::rejection::{ErrorCode, Rejection};
use agentsecrets_types::response_capture::{ResponseCapture, ResponseField};
use agentsecrets_types::secret::Secret;

/// The largest body that is looked into, in bytes.
const MAX_BODY: usize = 4 << 20;

/// Takes out of `response`, an answer of `host`, what `rule` says. `keep` keeps what is captured and is
/// called before anything of the answer goes on.
pub async fn capture(
    response: Response<Body>,
    rule: &ResponseCapture,
    host: &Host,
    mut keep: impl FnMut(&SecretName, Secret) -> Result<(), Rejection>,
) -> Result<Response<Body>, Rejection> {
    let (mut parts, body) = response.into_parts();
    for (source, name) in &rule.captures {
        match source {
            ResponseField::Header(header) => {
                let values = parts.headers.get_all(header);
                for value in values.iter().filter(|value| !value.is_empty()) {
                    keep(name, Secret::new(value.as_bytes().to_vec()))?;
                }
                if parts.headers.contains_key(header) {
                    parts.headers.insert(header, placeholder(name)?);
                }
            }
            ResponseField::Cookie(cookie) => cookies(&mut parts.headers, cookie, |value| {
                keep(name, Secret::new(value.to_vec()))?;
                placeholder(name).map(Some)
            })?,
            ResponseField::Json(_) => {}
        }
    }
    for source in &rule.strips {
        match source {
            ResponseField::Header(header) => drop(parts.headers.remove(header)),
            ResponseField::Cookie(cookie) => cookies(&mut parts.headers, cookie, |_| Ok(None))?,
            ResponseField::Json(_) => {}
        }
    }
    if rule.json_fields().next().is_none() || body.is_end_stream() {
        return Ok(Response::from_parts(parts, body));
    }
    let unreadable = |why: &str| {
        let message = format!("the rule takes something out of the answer of '{host}', which {why}");
        Rejection::new(ErrorCode::UnreadableAnswer, message)
    };
    let codings = codings(&parts.headers).map_err(|_| unreadable("is encoded in an unknown way"))?;
    let body = if codings.is_empty() { body } else { BodyExt::boxed_unsync(decoded(body, &codings)) };
    let whole = Limited::new(body, MAX_BODY).collect().await;
    let whole = whole.map_err(|_| unreadable("is larger than 4 MiB, or broke off"))?.to_bytes();
    let body = match std::str::from_utf8(&whole) {
        Ok(text) => json(text, rule, &mut keep)?.map_or(whole.clone(), Bytes::from),
        Err(_) => whole.clone(),
    };
    if body != whole || !codings.is_empty() {
        for name in DIGESTS.iter().chain(&[CONTENT_ENCODING, ETAG]) {
            parts.headers.remove(name);
        }
    }
    hop_by_hop::clear_framing(&mut parts.headers);
    hop_by_hop::set_length(&mut parts.headers, body.len() as u64);
    Ok(Response::from_parts(parts, full(body)))
}

/// Replaces the value of every `cookie` that is set by what `new` makes of it, or takes the cookie off.
fn cookies(
    headers: &mut HeaderMap,
    cookie: &str,
    mut new: impl FnMut(&[u8]) -> Result<Option<HeaderValue>, Rejection>,
) -> Result<(), Rejection> {
    let before: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for header in before {
        let bytes = header.as_bytes();
        let end = bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len());
        let (pair, attributes) = bytes.split_at(end);
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(equals);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        if name.trim_ascii() != cookie.as_bytes() {
            headers.append(SET_COOKIE, header);
            continue;
        }
        // Without a value the server takes it back.
        if value.is_empty() {
            headers.append(SET_COOKIE, header);
        } else if let Some(new) = new(value)? {
            let whole = [cookie.as_bytes(), b"=", new.as_bytes(), attributes].concat();
            headers.extend(HeaderValue::from_bytes(&whole).ok().map(|whole| (SET_COOKIE, whole)));
        }
    }
    Ok(())
}

/// The document without what is taken; nothing where nothing is, or where it is none.
fn json(
    text: &str,
    rule: &ResponseCapture,
    keep: &mut impl FnMut(&SecretName, Secret) -> Result<(), Rejection>,
) -> Result<Option<String>, Rejection> {
    let mut edits = Vec::new();
    for (path, name) in rule.json_fields() {
        for range in find(text, path).unwrap_or_default() {
            let raw = text.get(range.clone()).unwrap_or_default();
            let value: Option<String> = serde_json::from_str(raw).ok();
            let new = match (name, value) {
                (Some(name), Some(value)) if !value.is_empty() => {
                    keep(name, Secret::new(value.into_bytes()))?;
                    format!("\"AS_SECRET_{name}\"")
                }
                // What is no text cannot be kept, and is not handed out either.
                _ => "null".to_owned(),
            };
            edits.push((range, new));
        }
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    for (range, new) in &edits {
        // One within another is gone with it.
        if range.start >= at {
            clean.push_str(text.get(at..range.start).unwrap_or_default());
            clean.push_str(new);
            at = range.end;
        }
    }
    clean.push_str(text.get(at..).unwrap_or_default());
    Ok((!edits.is_empty()).then_some(clean))
}

fn placeholder(name: &SecretName) -> Result<HeaderValue, Rejection> {
    let unfit = |_| Rejection::new(ErrorCode::UnreadableAnswer, "what was captured cannot be named");
    HeaderValue::try_from(format!("AS_SECRET_{name}")).map_err(unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rule: &ResponseCapture, response: Response<Body>) -> (Response<Body>, Vec<(String, String)>) {
        let mut kept = Vec::new();
        let host = "api.test".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let keep = |name: &SecretName, value: Secret| {
            kept.push((name.to_string(), String::from_utf8(value.expose().to_vec()).unwrap()));
            Ok(())
        };
        let response = runtime.block_on(capture(response, rule, &host, keep)).unwrap();
        (response, kept)
    }

    fn text(response: Response<Body>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(response.into_body().collect()).unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn cookies_and_headers_are_captured_or_stripped() {
        let rule = ResponseCapture {
            captures: vec![
                (ResponseField::Cookie("sid".into()), "SID".parse().unwrap()),
                (ResponseField::Header("x-token".parse().unwrap()), "TOKEN".parse().unwrap()),
            ],
            strips: vec![
                ResponseField::Cookie("csrf".into()),
                ResponseField::Header("x-debug".parse().unwrap()),
            ],
        };
        let mut response = Response::new(full("body"));
        for (name, value) in [
            ("set-cookie", "sid=\"abc123\"; Path=/; HttpOnly"),
            ("set-cookie", "csrf=gone"),
            ("set-cookie", "theme=dark"),
            ("set-cookie", "sid=; Max-Age=0"),
            ("x-token", "t0ken"),
            ("x-debug", "gone"),
        ] {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        let (response, kept) = taken(&rule, response);
        assert_eq!(kept, [pair("SID", "abc123"), pair("TOKEN", "t0ken")]);
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["sid=AS_SECRET_SID; Path=/; HttpOnly", "theme=dark", "sid=; Max-Age=0"]);
        assert_eq!(response.headers()["x-token"], "AS_SECRET_TOKEN");
        assert!(!response.headers().contains_key("x-debug"));
        assert_eq!(text(response), "body");
    }

    #[test]
    fn json_fields_are_captured_or_stripped() {
        let rule = ResponseCapture {
            captures: vec![(ResponseField::Json("a.key".parse().unwrap()), "KEY".parse().unwrap())],
            strips: vec![
                ResponseField::Json("a.other".parse().unwrap()),
                ResponseField::Json("b".parse().unwrap()),
            ],
        };
        let document = "{ \"a\": {\"key\": \"s\\u0033cret\", \"other\":{\"x\":1}}, \"n\":1.50, \"b\":[1], \"a\":{\"key\":5} }";
        let (response, kept) = taken(&rule, Response::new(full(document)));
        assert_eq!(kept, [pair("KEY", "s3cret")]);
        let clean = "{ \"a\": {\"key\": \"AS_SECRET_KEY\", \"other\":null}, \"n\":1.50, \"b\":null, \"a\":{\"key\":null} }";
        assert_eq!(response.headers()["content-length"], clean.len().to_string());
        assert_eq!(text(response), clean);
        let (response, kept) = taken(&rule, Response::new(full("<html>{\"a\":")));
        assert_eq!((text(response).as_str(), kept.len()), ("<html>{\"a\":", 0));
    }
}
