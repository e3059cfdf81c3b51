//! Fills one request with the secrets of its grant, and builds the rejections for secrets that do not
//! fit.

use std::cell::Cell;

use http::HeaderValue;
use zeroize::Zeroizing;

use super::placeholder::{FilledTooLarge, Placeholders};
use crate::credentials::resolved::Credentials;
use crate::policy::grant::Grant;
use crate::policy::injection::InjectionStyle;
use crate::policy::location::InjectionPoint;
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::types::target::Target;

/// Maximum size of all text filled into one request, in bytes.
pub(super) const MAX_FILLED_SIZE: usize = 16 << 20;

pub(super) struct Injector<'a> {
    pub target: &'a Target,
    pub grant: &'a Grant,
    pub credentials: &'a Credentials,
    pub placeholders: &'a Placeholders,
    /// Bytes that may still be filled in.
    remaining: Cell<usize>,
}

/// Text whose placeholders were filled.
pub(super) struct Filled {
    pub bytes: Zeroizing<Vec<u8>>,
    /// The first secret in it, for error messages.
    pub name: SecretName,
}

impl<'a> Injector<'a> {
    /// Creates the injector for one request to `target`. Fails with `secret_missing` if `credentials`
    /// lacks a secret.
    pub(super) fn new(
        target: &'a Target,
        grant: &'a Grant,
        credentials: &'a Credentials,
        placeholders: &'a Placeholders,
    ) -> Result<Self, Rejection> {
        let injector =
            Self { target, grant, credentials, placeholders, remaining: Cell::new(MAX_FILLED_SIZE) };
        for secret_use in grant.secret_uses() {
            injector.value(&secret_use.name)?;
        }
        Ok(injector)
    }

    pub(super) fn value(&self, name: &SecretName) -> Result<&'a Secret, Rejection> {
        self.credentials.get(name).ok_or_else(|| self.secret_missing(name))
    }

    pub(super) fn secret_missing(&self, name: &SecretName) -> Rejection {
        self.reject(ErrorCode::SecretMissing, format!("secret '{name}' not found in keychain"))
    }

    /// Fills the placeholders in `bytes` that the grant allows at `point`. Returns `None` if there are
    /// none.
    pub(super) fn fill(
        &self,
        bytes: &[u8],
        point: impl FnOnce() -> InjectionPoint,
    ) -> Result<Option<Filled>, Rejection> {
        if self.placeholders.find_iter(bytes).next().is_none() {
            return Ok(None);
        }
        let style = InjectionStyle::Placeholder(point());
        let granted = |name: &SecretName| {
            self.grant
                .secret_uses()
                .iter()
                .any(|secret_use| secret_use.name == *name && secret_use.style == style)
        };
        let value = |name: &SecretName| {
            self.credentials.get(name).filter(|_| granted(name)).map(|value| value.expose())
        };
        let filled = self.placeholders.fill(bytes, value, self.remaining.get());
        let filled = filled.map_err(|FilledTooLarge| {
            let message = "filling in the secrets makes the request larger than 16 MiB";
            self.reject(ErrorCode::BodyTooLarge, message.to_owned())
        })?;
        let Some(bytes) = filled else { return Ok(None) };
        self.remaining.set(self.remaining.get().saturating_sub(bytes.len()));
        let mut names = self.grant.secret_uses().iter().filter(|secret_use| secret_use.style == style);
        let name = names.next().map(|secret_use| secret_use.name.clone());
        Ok(name.map(|name| Filled { bytes, name }))
    }

    /// Builds a header value from `bytes`, which contain the secret `name`.
    pub(super) fn header_value(&self, name: &SecretName, bytes: &[u8]) -> Result<HeaderValue, Rejection> {
        let mut value = HeaderValue::from_bytes(bytes).map_err(|_| self.invalid_value(name, "a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Rejects a value that `what` cannot carry.
    pub(super) fn invalid_value(&self, name: &SecretName, what: &str) -> Rejection {
        self.bad_request(format!("secret '{name}' holds bytes that {what} cannot carry"))
    }

    pub(super) fn bad_request(&self, message: impl Into<String>) -> Rejection {
        self.reject(ErrorCode::BadRequest, message.into())
    }

    pub(super) fn reject(&self, slug: ErrorCode, message: String) -> Rejection {
        Rejection::new(slug, message).by_rule(&**self.grant.rule())
    }
}
