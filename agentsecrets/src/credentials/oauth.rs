//! OAuth 2: what a client says to a token endpoint, and how its answer is read. Of an answer that is no
//! token, only the error code that the standard knows is ever repeated.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use url::form_urlencoded::{Serializer, byte_serialize};
use zeroize::Zeroizing;

use crate::credentials::token_request::TokenResponse;
use crate::policy::minted_credentials::OAuth;
use crate::types::secret::Secret;

/// The kind of body that is sent.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";
/// The longest token, in bytes.
const MAX_TOKEN_LEN: usize = 16 << 10;
/// Lifetime of a token whose response does not give one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// Longest time for which a token is kept.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A token, as an endpoint gave it.
pub(super) struct GrantedToken {
    pub(super) token: Secret,
    pub(super) lifetime: Duration,
    /// The new refresh token.
    pub(super) refresh: Option<Secret>,
}

/// The body of the question, and its `Authorization`.
pub(super) fn request(
    oauth: &OAuth,
    secret: Option<&Secret>,
    refresh: Option<&Secret>,
) -> Result<(Zeroizing<Vec<u8>>, Option<HeaderValue>), String> {
    let secret = secret.map(|secret| text(secret, "the client's secret")).transpose()?;
    let refresh = refresh.map(|token| text(token, "the refresh token")).transpose()?;
    let size = 256 + 3 * (secret.map_or(0, str::len) + refresh.map_or(0, str::len));
    let mut form = Serializer::new(String::with_capacity(size));
    match refresh {
        Some(token) => form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token),
        None => form.append_pair("grant_type", "client_credentials"),
    };
    if !oauth.scopes.is_empty() {
        form.append_pair("scope", &oauth.scopes.join(" "));
    }
    if let Some(audience) = &oauth.audience {
        form.append_pair("audience", audience);
    }
    let authorization = match secret {
        Some(secret) if !oauth.secret_in_body => {
            // The standard wants both parts encoded before they are joined.
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let pair =
                Zeroizing::new(format!("{}:{}", encoded(&oauth.client_id), *Zeroizing::new(encoded(secret))));
            let value = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(&*pair))));
            let mut value =
                HeaderValue::from_str(&value).map_err(|_| "the client's secret cannot be sent".to_owned())?;
            value.set_sensitive(true);
            Some(value)
        }
        secret => {
            form.append_pair("client_id", &oauth.client_id);
            if let Some(secret) = secret {
                form.append_pair("client_secret", secret);
            }
            None
        }
    };
    Ok((Zeroizing::new(form.finish().into_bytes()), authorization))
}

fn text<'a>(secret: &'a Secret, what: &str) -> Result<&'a str, String> {
    std::str::from_utf8(secret.expose()).map_err(|_| format!("{what} is no text"))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

/// The token in `reply`, or why there is none.
pub(super) fn read(reply: &TokenResponse) -> Result<GrantedToken, String> {
    if (300..400).contains(&reply.status) {
        return Err("it redirects, which is not followed: name the final URL in 'token_url'".to_owned());
    }
    let answer: Answer = serde_json::from_slice(&reply.body)
        .map_err(|_| format!("it answers {} with what is no token of OAuth 2 (JSON)", reply.status))?;
    let secret =
        |text: Option<String>| text.filter(|text| is_token(text)).map(|text| Secret::new(text.into_bytes()));
    if !(200..300).contains(&reply.status) || answer.error.is_some() {
        let code = answer.error.as_ref().and_then(|code| known(code.as_str()?));
        return Err(match code {
            Some((code, fix)) => format!("it answers {}, {code}: {fix}", reply.status),
            None => format!("it answers {}", reply.status),
        });
    }
    let token = secret(answer.access_token).ok_or("its answer has no usable access_token")?;
    let seconds = answer.expires_in.and_then(|said| match said {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.parse().ok(),
        _ => None,
    });
    let lifetime = seconds.filter(|seconds| *seconds >= 1.0).map_or(DEFAULT_LIFETIME, |seconds| {
        Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFETIME).min(MAX_LIFETIME)
    });
    Ok(GrantedToken { token, lifetime, refresh: secret(answer.refresh_token) })
}

/// Whether `text` can stand in a header.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOKEN_LEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The standard's error codes, and what to do.
fn known(code: &str) -> Option<(&'static str, &'static str)> {
    let known = [
        ("invalid_request", "look at the credential's keys in the policy"),
        ("invalid_client", "the client_id or the client's secret is wrong"),
        ("invalid_grant", "the refresh token, or the key, is no longer good: store a new one"),
        ("unauthorized_client", "this client may not use this grant"),
        ("unsupported_grant_type", "the endpoint does not know this grant"),
        ("invalid_scope", "look at 'scopes'"),
        ("access_denied", "the owner has not agreed"),
        ("server_error", "try again later"),
        ("temporarily_unavailable", "try again later"),
    ];
    known.into_iter().find(|(known, _)| *known == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Result<GrantedToken, String> {
        read(&TokenResponse { status, body: Zeroizing::new(body.as_bytes().to_vec()) })
    }

    #[test]
    fn token_lifetime_and_new_refresh_token_are_read() {
        let granted = reply(200, r#"{"access_token":"at","expires_in":3600,"refresh_token":"rt"}"#).unwrap();
        assert_eq!((granted.token.expose(), granted.lifetime.as_secs()), (&b"at"[..], 3600));
        assert_eq!(granted.refresh.unwrap().expose(), b"rt");
        for (said, seconds) in [("\"60\"", 60), ("null", 300), ("-5", 300), ("1e99", 86400), ("{}", 300)] {
            let granted = reply(200, &format!(r#"{{"access_token":"at","expires_in":{said}}}"#)).unwrap();
            assert_eq!(granted.lifetime.as_secs(), seconds, "{said}");
        }
    }

    #[test]
    fn invalid_response_error_repeats_nothing_of_it() {
        for (status, body, expected) in [
            (200, "<html>hunter2</html>", "no token of OAuth 2"),
            (200, r#"{"access_token":"two words"}"#, "no usable access_token"),
            (200, r#"{"access_token":""}"#, "no usable access_token"),
            (200, r#"{"error":"invalid_grant"}"#, "store a new one"),
            (
                401,
                r#"{"error":"invalid_client","error_description":"hunter2"}"#,
                "answers 401, invalid_client",
            ),
            (400, r#"{"error":"hunter2"}"#, "it answers 400"),
            (500, r#"{}"#, "it answers 500"),
            (302, "", "redirects"),
        ] {
            let error = reply(status, body).err().unwrap();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{body}: {error}");
        }
    }
}
