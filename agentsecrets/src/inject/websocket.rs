//! Secrets in the text messages of a WebSocket, if its rule allows them there.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::body::json;
use super::placeholder::{FilledTooLarge, Placeholders};
use crate::credentials::resolved::Credentials;
use crate::inject::injector::MAX_FILLED_SIZE;
use crate::policy::grant::Grant;
use crate::policy::injection::InjectionStyle;
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;

/// Fills the placeholders in the messages of one WebSocket.
pub(crate) struct MessageInjector {
    values: Vec<(SecretName, Arc<Secret>)>,
    domain: String,
    rule: Arc<str>,
}

impl MessageInjector {
    /// Returns the injector for messages to `domain`, or `None` if `grant` allows no secret in messages.
    pub(crate) fn from_grant(
        grant: &Grant,
        credentials: &Credentials,
        domain: impl ToString,
    ) -> Option<Self> {
        let messages = InjectionStyle::Placeholder(InjectionPoint::new(LocationKind::WebSocket, ""));
        let here = grant.secret_uses().iter().filter(|secret_use| secret_use.style == messages);
        let values: Vec<_> = here
            .filter_map(|secret_use| Some((secret_use.name.clone(), credentials.shared(&secret_use.name)?)))
            .collect();
        let rule = grant.rule().clone();
        (!values.is_empty()).then(|| Self { values, domain: domain.to_string(), rule })
    }

    /// Fills the placeholders in `text`; `None` if it has none. In a JSON document, string values are
    /// filled. Fails with `policy_denied` if it names a secret that is not granted here.
    pub(crate) fn fill(
        &self,
        text: &[u8],
        placeholders: &Placeholders,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
        self.check_granted(text, placeholders)?;
        let Ok(document) = json::validate(text) else {
            return self.fill_text(text, placeholders, MAX_FILLED_SIZE);
        };
        let mut left = MAX_FILLED_SIZE;
        json::replace_strings(document, |_, value| {
            self.check_granted(value.as_bytes(), placeholders)?;
            let Some(filled) = self.fill_text(value.as_bytes(), placeholders, left)? else { return Ok(None) };
            left = left.saturating_sub(filled.len());
            let no_text =
                || self.reject(ErrorCode::BadRequest, "a secret in it is not text, which JSON needs");
            json::encode_string(&filled).ok_or_else(no_text).map(Some)
        })
    }

    fn value(&self, name: &SecretName) -> Option<&[u8]> {
        let known = self.values.iter().find(|(known, _)| known == name);
        known.map(|(_, value)| value.expose())
    }

    fn check_granted(&self, text: &[u8], placeholders: &Placeholders) -> Result<(), Rejection> {
        match placeholders.find_iter(text).find(|matched| self.value(&matched.name).is_none()) {
            Some(matched) => {
                let message = format!("'{}' may not be spent at '{}' (websocket)", matched.name, self.domain);
                Err(self.reject(ErrorCode::PolicyDenied, &message))
            }
            None => Ok(()),
        }
    }

    fn fill_text(
        &self,
        text: &[u8],
        placeholders: &Placeholders,
        max_size: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
        placeholders.fill(text, |name| self.value(name), max_size).map_err(|FilledTooLarge| {
            self.reject(
                ErrorCode::BodyTooLarge,
                "filling in the secrets makes the message larger than 16 MiB",
            )
        })
    }

    fn reject(&self, slug: ErrorCode, message: &str) -> Rejection {
        Rejection::new(slug, message).by_rule(&*self.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::injection::SecretUse;

    fn messages(kind: LocationKind) -> Option<MessageInjector> {
        let name: SecretName = "A".parse().unwrap();
        let grant = Grant::for_test(vec![SecretUse {
            name: name.clone(),
            style: InjectionStyle::Placeholder(InjectionPoint::new(kind, "")),
        }]);
        let credentials = Credentials::new(vec![(name, Arc::new(Secret::new(b"v\"lue".to_vec())))]);
        MessageInjector::from_grant(&grant, &credentials, "api.test")
    }

    #[test]
    fn granted_placeholder_in_message_is_filled() {
        let placeholders = Placeholders::new([("A".parse().unwrap(), None)]);
        let messages = messages(LocationKind::WebSocket).unwrap();
        let filled =
            messages.fill(b"{\"AS_SECRET_A\": \"AS\\u005fSECRET_A\"}", &placeholders).unwrap().unwrap();
        assert_eq!(&**filled, b"{\"AS_SECRET_A\": \"v\\\"lue\"}");
        let filled = messages.fill(b"AUTH AS_SECRET_A", &placeholders).unwrap().unwrap();
        assert_eq!(&**filled, b"AUTH v\"lue");
        assert!(messages.fill(b"no placeholder", &placeholders).unwrap().is_none());
        let rejection = messages.fill(b"AS_SECRET_A and AS_SECRET_B", &placeholders).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::PolicyDenied);
        assert!(messages.fill(b"[\"\\u0041S_SECRET_B\"]", &placeholders).is_err());
        assert!(super::tests::messages(LocationKind::Auth).is_none());
    }
}
