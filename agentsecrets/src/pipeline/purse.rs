//! What one agent came to hold at run time, or rather we for it: tokens that were made and what answers
//! minted. Everything in it is searched for in answers before it is spent, and until it is no longer good.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::refusal::{Refusal, Slug};
use crate::base::secret::Secret;
use crate::redact::additions::Additions;
use crate::resolve::minter::Minted;

/// How long what has expired is still searched for: clocks differ, and servers are lenient.
const GRACE: Duration = Duration::from_secs(600);
/// How long a refresh token is searched for once another took its place.
const REFRESH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// One agent's purse. It outlives the wallet.
#[derive(Default)]
pub struct Purse {
    additions: Arc<Additions>,
    minted: Mutex<Vec<(Arc<Secret>, Instant)>>,
}

impl Purse {
    /// What its answers are searched for besides the stored secrets.
    pub fn additions(&self) -> Arc<Additions> {
        self.additions.clone()
    }

    /// Takes a token that was made. It may be spent once this has returned.
    pub fn put(&self, minted: &Minted) -> Result<(), Refusal> {
        let mut known = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let fresh = |value: &Arc<Secret>| !known.iter().any(|(known, _)| Arc::ptr_eq(known, value));
        let new: Vec<(Arc<Secret>, Instant)> = [Some((&minted.value, minted.expires + GRACE))]
            .into_iter()
            .chain([minted.refresh.as_ref().map(|refresh| (refresh, now + REFRESH))])
            .flatten()
            .filter(|(value, _)| fresh(value))
            .map(|(value, until)| (value.clone(), until))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let expired: Vec<Arc<Secret>> =
            known.extract_if(.., |(_, until)| *until < now).map(|(value, _)| value).collect();
        if !expired.is_empty() {
            self.additions.retain(|value| !expired.iter().any(|expired| **expired == *value));
        }
        for (value, until) in new {
            self.additions
                .add(value.clone())
                .map_err(|full| Refusal::new(Slug::CredentialUnavailable, "", full.to_string()))?;
            known.push((value, until));
        }
        Ok(())
    }
}
