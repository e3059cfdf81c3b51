//! Secrets in the text messages of a WebSocket, where its rule lets them stand there.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::body::json;
use super::placeholder::{TooLong, Vocabulary};
use crate::credentials::resolved::Credentials;
use crate::inject::injector::MOST_FILLED;
use crate::policy::access_request::{Place, Spot};
use crate::policy::grant::{Grant, Style};
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;

/// Fills the placeholders of one conversation's messages.
pub struct Messages {
    values: Vec<(SecretName, Arc<Secret>)>,
    domain: String,
    rule: Arc<str>,
}

impl Messages {
    /// What `grant` lets stand in messages to `domain`; nothing where it lets nothing.
    pub fn granted(grant: &Grant, credentials: &Credentials, domain: impl ToString) -> Option<Self> {
        let messages = Style::Placeholder(Spot::new(Place::WebSocket, ""));
        let here = grant.spends().iter().filter(|spend| spend.style == messages);
        let values: Vec<_> =
            here.filter_map(|spend| Some((spend.name.clone(), credentials.shared(&spend.name)?))).collect();
        let rule = grant.rule().clone();
        (!values.is_empty()).then(|| Self { values, domain: domain.to_string(), rule })
    }

    /// `text` with its placeholders filled, or nothing where it has none. In a JSON document they are filled as
    /// the strings that they are. Refused with `policy_denied` where it names a secret that may not be spent
    /// here.
    pub fn fill(
        &self,
        text: &[u8],
        vocabulary: &Vocabulary,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
        self.may_be_spent(text, vocabulary)?;
        let Ok(document) = json::check(text) else { return self.filled(text, vocabulary, MOST_FILLED) };
        let mut left = MOST_FILLED;
        json::with(document, |_, value| {
            self.may_be_spent(value.as_bytes(), vocabulary)?;
            let Some(filled) = self.filled(value.as_bytes(), vocabulary, left)? else { return Ok(None) };
            left = left.saturating_sub(filled.len());
            let no_text =
                || self.refuse(ErrorCode::BadRequest, "a secret in it is no text, as JSON needs it");
            json::quoted(&filled).ok_or_else(no_text).map(Some)
        })
    }

    fn value(&self, name: &SecretName) -> Option<&[u8]> {
        let known = self.values.iter().find(|(known, _)| known == name);
        known.map(|(_, value)| value.expose())
    }

    fn may_be_spent(&self, text: &[u8], vocabulary: &Vocabulary) -> Result<(), Rejection> {
        match vocabulary.mentions(text).find(|mention| self.value(&mention.name).is_none()) {
            Some(mention) => {
                let message = format!("'{}' may not be spent at '{}' (websocket)", mention.name, self.domain);
                Err(self.refuse(ErrorCode::PolicyDenied, &message))
            }
            None => Ok(()),
        }
    }

    fn filled(
        &self,
        text: &[u8],
        vocabulary: &Vocabulary,
        most: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
        vocabulary.fill(text, |name| self.value(name), most).map_err(|TooLong| {
            self.refuse(
                ErrorCode::BodyTooLarge,
                "filling in the secrets makes the message larger than 16 MiB",
            )
        })
    }

    fn refuse(&self, slug: ErrorCode, message: &str) -> Rejection {
        Rejection::new(slug, &self.domain, message).by_rule(&*self.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::grant::Spend;

    fn messages(place: Place) -> Option<Messages> {
        let name: SecretName = "A".parse().unwrap();
        let grant = Grant::for_test(vec![Spend {
            name: name.clone(),
            style: Style::Placeholder(Spot::new(place, "")),
        }]);
        let credentials = Credentials::new(vec![(name, Arc::new(Secret::new(b"v\"lue".to_vec())))]);
        Messages::granted(&grant, &credentials, "api.test")
    }

    #[test]
    fn only_what_the_rule_lets_stand_in_messages_is_filled() {
        let vocabulary = Vocabulary::new([("A".parse().unwrap(), None)]);
        let messages = messages(Place::WebSocket).unwrap();
        let filled =
            messages.fill(b"{\"AS_SECRET_A\": \"AS\\u005fSECRET_A\"}", &vocabulary).unwrap().unwrap();
        assert_eq!(&**filled, b"{\"AS_SECRET_A\": \"v\\\"lue\"}");
        let filled = messages.fill(b"AUTH AS_SECRET_A", &vocabulary).unwrap().unwrap();
        assert_eq!(&**filled, b"AUTH v\"lue");
        assert!(messages.fill(b"no placeholder", &vocabulary).unwrap().is_none());
        let refusal = messages.fill(b"AS_SECRET_A and AS_SECRET_B", &vocabulary).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::PolicyDenied);
        assert!(messages.fill(b"[\"\\u0041S_SECRET_B\"]", &vocabulary).is_err());
        assert!(super::tests::messages(Place::Auth).is_none());
    }
}
