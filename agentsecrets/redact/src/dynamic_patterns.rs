//! Secrets that come into being while answers flow: a token that was minted, a cookie that a rule captures.
//! They are searched for from the moment they are added, in answers under way too, so what is minted is
//! added first and handed out then.

use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};

use super::search::Search;
use agentsecrets_types::secret::Secret;
use agentsecrets_types::sync::MutexExt;

/// How many values may be held at once, and how many bytes together: what is minted without end must not
/// fill the memory.
const MAX_VALUES: usize = 256;
const MAX_SIZE: usize = 256 << 10;

/// What was added to one agent's secrets at run time. It outlives the agent credentials, which are built anew when the
/// policy or the store changes.
pub struct DynamicPatterns {
    values: Mutex<Vec<Arc<Secret>>>,
    search: ArcSwap<Search>,
}

/// There is no room for another value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("too many secrets were made at run time: 256 values, or 256 KiB, are kept for one agent")]
pub struct TooManyPatterns;

impl Default for DynamicPatterns {
    fn default() -> Self {
        Self { values: Mutex::default(), search: ArcSwap::from_pointee(Search::Empty) }
    }
}

impl DynamicPatterns {
    /// Adds `value`. When this returns, no answer passes with it. One that there is no room for must not be
    /// handed out.
    pub fn add(&self, value: Arc<Secret>) -> Result<(), TooManyPatterns> {
        let mut values = self.values.lock_ignoring_poison();
        if values.iter().any(|known| **known == *value) {
            return Ok(());
        }
        let size: usize = values.iter().map(|known| known.len()).sum();
        if values.len() >= MAX_VALUES || size + value.len() > MAX_SIZE {
            return Err(TooManyPatterns);
        }
        values.push(value);
        self.renew(&values);
        Ok(())
    }

    /// Forgets every value that is not to be kept, such as those that have expired.
    pub fn retain(&self, keep: impl Fn(&Secret) -> bool) {
        let mut values = self.values.lock_ignoring_poison();
        let before = values.len();
        values.retain(|value| keep(value));
        if values.len() < before {
            self.renew(&values);
        }
    }

    /// The present search.
    pub(super) fn search(&self) -> Guard<Arc<Search>> {
        self.search.load()
    }

    fn renew(&self, values: &[Arc<Secret>]) {
        self.search.store(Arc::new(Search::of(values.iter().map(|value| &**value))));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::patterns::Patterns;
    use crate::stream::{StreamRedactor, Unit};

    fn secret(text: &str) -> Arc<Secret> {
        Arc::new(Secret::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn added_value_applies_to_open_streams() {
        let dynamic = Arc::<DynamicPatterns>::default();
        let patterns = Patterns::with([&*secret("a stored secret")], dynamic.clone());
        let mut stream = StreamRedactor::new(patterns.clone(), Unit::Line);
        let line = Bytes::from_static(b"minted-token-1 a stored secret\n");
        assert_eq!(stream.push(line.clone()), "minted-token-1 [REDACTED_BY_AGENTSECRETS]\n");
        dynamic.add(secret("minted-token-1")).unwrap();
        assert_eq!(stream.push(line), "[REDACTED_BY_AGENTSECRETS] [REDACTED_BY_AGENTSECRETS]\n");
        dynamic.retain(|_| false);
        assert_eq!(patterns.redact_bytes(b"minted-token-1"), None);
        assert!(patterns.redact_bytes(b"a stored secret").is_some());
    }

    #[test]
    fn first_value_can_be_added_at_run_time() {
        let dynamic = Arc::<DynamicPatterns>::default();
        let patterns = Patterns::with([], dynamic.clone());
        assert!(patterns.is_empty());
        dynamic.add(secret("minted-token-1")).unwrap();
        assert!(!patterns.is_empty() && patterns.redact_bytes(b"minted-token-1").is_some());
    }

    #[test]
    fn request_value_applies_to_its_response_only() {
        let patterns = Patterns::build([&*secret("a stored secret")]);
        let signed = patterns.and([&*secret("computed-signature")]);
        assert!(
            signed.redact_bytes(b"computed-signature").is_some()
                && signed.redact_bytes(b"a stored secret").is_some()
        );
        assert_eq!(patterns.redact_bytes(b"computed-signature"), None);
    }

    #[test]
    fn endless_minting_is_refused() {
        let dynamic = DynamicPatterns::default();
        dynamic.add(Arc::new(Secret::new(vec![b'a'; MAX_SIZE]))).unwrap();
        assert_eq!(dynamic.add(secret("one more")), Err(TooManyPatterns));
        dynamic.retain(|_| false);
        dynamic.add(secret("one more")).unwrap();
        dynamic.add(secret("one more")).unwrap();
    }
}
