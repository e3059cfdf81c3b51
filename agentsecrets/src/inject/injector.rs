//! What a grant puts into one request: the values, which placeholder stands for which of them at which
//! spot, and the words in which it is refused.

use std::cell::Cell;

use http::HeaderValue;
use zeroize::Zeroizing;

use super::placeholder::{TooLong, Vocabulary};
use crate::credentials::resolved::Credentials;
use crate::policy::access_request::Spot;
use crate::policy::grant::{Grant, Style};
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::types::target::Target;

/// How much text may come of filling placeholders in one request, in bytes.
pub(super) const MOST_FILLED: usize = 16 << 20;

pub(super) struct Spender<'a> {
    pub target: &'a Target,
    pub grant: &'a Grant,
    pub credentials: &'a Credentials,
    pub vocabulary: &'a Vocabulary,
    /// How much more may be filled in.
    left: Cell<usize>,
}

/// Text whose placeholders were filled.
pub(super) struct Filled {
    pub bytes: Zeroizing<Vec<u8>>,
    /// The first secret in it, to be named where it does not fit.
    pub name: SecretName,
}

impl<'a> Spender<'a> {
    /// For one request to `target`. Refused with `secret_missing` where `credentials` lacks a secret.
    pub(super) fn new(
        target: &'a Target,
        grant: &'a Grant,
        credentials: &'a Credentials,
        vocabulary: &'a Vocabulary,
    ) -> Result<Self, Rejection> {
        let spender = Self { target, grant, credentials, vocabulary, left: Cell::new(MOST_FILLED) };
        for spend in grant.spends() {
            spender.value(&spend.name)?;
        }
        Ok(spender)
    }

    pub(super) fn value(&self, name: &SecretName) -> Result<&'a Secret, Rejection> {
        self.credentials.get(name).ok_or_else(|| self.missing(name))
    }

    pub(super) fn missing(&self, name: &SecretName) -> Rejection {
        self.refuse(ErrorCode::SecretMissing, format!("secret '{name}' not found in keychain"))
    }

    /// What stands at `spot`, with the placeholders filled that the grant lets be filled there; nothing where
    /// there are none.
    pub(super) fn fill(
        &self,
        bytes: &[u8],
        spot: impl FnOnce() -> Spot,
    ) -> Result<Option<Filled>, Rejection> {
        if self.vocabulary.mentions(bytes).next().is_none() {
            return Ok(None);
        }
        let style = Style::Placeholder(spot());
        let granted = |name: &SecretName| {
            self.grant.spends().iter().any(|spend| spend.name == *name && spend.style == style)
        };
        let value = |name: &SecretName| {
            self.credentials.get(name).filter(|_| granted(name)).map(|value| value.expose())
        };
        let filled = self.vocabulary.fill(bytes, value, self.left.get());
        let filled = filled.map_err(|TooLong| {
            let message = "filling in the secrets makes the request larger than 16 MiB";
            self.refuse(ErrorCode::BodyTooLarge, message.to_owned())
        })?;
        let Some(bytes) = filled else { return Ok(None) };
        self.left.set(self.left.get().saturating_sub(bytes.len()));
        let mut names = self.grant.spends().iter().filter(|spend| spend.style == style);
        let name = names.next().map(|spend| spend.name.clone());
        Ok(name.map(|name| Filled { bytes, name }))
    }

    /// `bytes`, which hold the secret `name`, as a header's value.
    pub(super) fn header(&self, name: &SecretName, bytes: &[u8]) -> Result<HeaderValue, Rejection> {
        let mut value = HeaderValue::from_bytes(bytes).map_err(|_| self.unfit(name, "a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Refuses a value that `what` cannot hold.
    pub(super) fn unfit(&self, name: &SecretName, what: &str) -> Rejection {
        self.bad(format!("secret '{name}' holds bytes that {what} cannot carry"))
    }

    pub(super) fn bad(&self, message: impl Into<String>) -> Rejection {
        self.refuse(ErrorCode::BadRequest, message.into())
    }

    pub(super) fn refuse(&self, slug: ErrorCode, message: String) -> Rejection {
        Rejection::new(slug, &self.target.host, message).by_rule(&**self.grant.rule())
    }
}
