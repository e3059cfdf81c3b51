//! Credentials obtained at run time for one agent: minted tokens and values captured from responses. Every
//! response is searched for each of them before it is spent, and until it is no longer valid.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::credentials::minter::Minted;
use crate::redact::dynamic_patterns::DynamicPatterns;
use crate::types::host::Host;
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::types::sync::MutexExt;

/// Expired values are still searched for during this time: clocks differ, and servers are lenient.
const EXPIRY_GRACE: Duration = Duration::from_secs(600);
/// A replaced refresh token or stored value is searched for during this time.
const REPLACED_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The oldest replaced value makes room for a new one.
const MAX_REPLACED: usize = 64;
/// The oldest captured value makes room for a new one, in all and per name.
const MAX_CAPTURED: usize = 64;
const MAX_CAPTURED_PER_NAME: usize = 4;
/// Shorter ones are spent, but not searched for: that would mangle answers.
const MIN_SEARCHED_LEN: usize = 8;

/// The credentials that one agent obtained at run time. They outlive its `AgentCredentials`.
#[derive(Default)]
pub struct RuntimeCredentials {
    dynamic_patterns: Arc<DynamicPatterns>,
    values: Mutex<RuntimeValues>,
}

#[derive(Default)]
struct RuntimeValues {
    /// Until when each is searched for.
    minted: Vec<(Arc<Secret>, Instant)>,
    /// Stored once; the oldest first.
    replaced: VecDeque<(Arc<Secret>, Instant)>,
    /// The oldest first.
    captured: VecDeque<Captured>,
}

struct Captured {
    name: SecretName,
    session: Arc<str>,
    host: Host,
    value: Arc<Secret>,
}

impl RuntimeCredentials {
    /// Values that responses are searched for besides the stored secrets.
    pub fn dynamic_patterns(&self) -> Arc<DynamicPatterns> {
        self.dynamic_patterns.clone()
    }

    /// Takes a token that was made. It may be spent once this has returned.
    pub fn put(&self, minted: &Minted) -> Result<(), Rejection> {
        let mut values = self.values();
        let now = Instant::now();
        let refresh = minted.refresh.as_ref().map(|refresh| (refresh, now + REPLACED_RETENTION));
        let both = [(&minted.value, minted.expires + EXPIRY_GRACE)].into_iter().chain(refresh);
        let is_new = |value: &Arc<Secret>| !values.minted.iter().any(|(known, _)| Arc::ptr_eq(known, value));
        let new: Vec<_> =
            both.filter(|(value, _)| is_new(value)).map(|(value, until)| (value.clone(), until)).collect();
        if new.is_empty() {
            return Ok(());
        }
        values.minted.retain(|(_, until)| *until >= now);
        values.minted.extend(new.iter().cloned());
        self.forget(&values);
        for (value, _) in new {
            self.search_for(value)?;
        }
        Ok(())
    }

    /// Goes on searching for a value that the store had: connections on which it was spent may live, and
    /// servers may say it long after.
    pub fn retire(&self, value: Arc<Secret>) -> Result<(), Rejection> {
        let mut values = self.values();
        let now = Instant::now();
        values.minted.retain(|(_, until)| *until >= now);
        values.replaced.retain(|(known, until)| *until >= now && *known != value);
        if values.replaced.len() >= MAX_REPLACED {
            values.replaced.pop_front();
        }
        values.replaced.push_back((value.clone(), now + REPLACED_RETENTION));
        self.forget(&values);
        self.search_for(value)
    }

    /// Keeps what an answer of `host` minted in `session`.
    pub fn capture(
        &self,
        name: &SecretName,
        session: &Arc<str>,
        host: &Host,
        value: Secret,
    ) -> Result<(), Rejection> {
        let mut values = self.values();
        let value = Arc::new(value);
        let same = |it: &Captured| it.name == *name && it.session == *session && it.host == *host;
        let mut of_it = values
            .captured
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, it)| same(it))
            .map(|(at, it)| (at, &it.value));
        match (of_it.next(), of_it.nth(MAX_CAPTURED_PER_NAME - 2).map(|(at, _)| at)) {
            (Some((_, latest)), _) if **latest == *value => return Ok(()),
            (_, Some(oldest)) => drop(values.captured.remove(oldest)),
            _ if values.captured.len() >= MAX_CAPTURED => drop(values.captured.pop_front()),
            _ => {}
        }
        self.forget(&values);
        let (name, session, host) = (name.clone(), session.clone(), host.clone());
        values.captured.push_back(Captured { name, session, host, value: value.clone() });
        if value.len() < MIN_SEARCHED_LEN { Ok(()) } else { self.search_for(value) }
    }

    /// The last value captured under `name` from `host` in `session`.
    pub fn captured(&self, name: &SecretName, session: &str, host: &Host) -> Option<Arc<Secret>> {
        let values = self.values();
        let mut latest = values.captured.iter().rev();
        let is_it = |it: &&Captured| it.name == *name && &*it.session == session && it.host == *host;
        latest.find(is_it).map(|captured| captured.value.clone())
    }

    fn values(&self) -> MutexGuard<'_, RuntimeValues> {
        self.values.lock_ignoring_poison()
    }

    /// Ends the search for what is held no longer.
    fn forget(&self, values: &RuntimeValues) {
        let captured = values.captured.iter().map(|captured| &captured.value);
        let until = values.minted.iter().chain(&values.replaced).map(|(value, _)| value);
        let kept: Vec<&Arc<Secret>> = until.chain(captured).collect();
        self.dynamic_patterns.retain(|value| kept.iter().any(|kept| ***kept == *value));
    }

    fn search_for(&self, value: Arc<Secret>) -> Result<(), Rejection> {
        let added = self.dynamic_patterns.add(value);
        added.map_err(|full| Rejection::new(ErrorCode::CredentialUnavailable, full.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn captured_value_is_bound_to_session_and_host() {
        let runtime = RuntimeCredentials::default();
        let (name, host): (SecretName, Host) = ("SID".parse().unwrap(), "a.test".parse().unwrap());
        let session: Arc<str> = "one".into();
        runtime.capture(&name, &session, &host, secret("first-value")).unwrap();
        runtime.capture(&name, &session, &host, secret("second-value")).unwrap();
        assert_eq!(runtime.captured(&name, "one", &host).unwrap().expose(), b"second-value");
        assert!(runtime.captured(&name, "two", &host).is_none());
        assert!(runtime.captured(&name, "one", &"b.test".parse().unwrap()).is_none());
    }

    #[test]
    fn endless_minting_is_bounded() {
        let runtime = RuntimeCredentials::default();
        let (name, host): (SecretName, Host) = ("SID".parse().unwrap(), "a.test".parse().unwrap());
        for number in 0..20 {
            for _twice in 0..2 {
                runtime
                    .capture(&name, &"one".into(), &host, secret(&format!("value-number-{number}")))
                    .unwrap();
            }
        }
        assert_eq!(runtime.values().captured.len(), MAX_CAPTURED_PER_NAME);
        assert_eq!(runtime.captured(&name, "one", &host).unwrap().expose(), b"value-number-19");
        for number in 0..2 * MAX_CAPTURED {
            runtime.capture(&name, &number.to_string().into(), &host, secret("short")).unwrap();
        }
        assert_eq!(runtime.values().captured.len(), MAX_CAPTURED);
    }

    #[test]
    fn replaced_values_are_searched_and_bounded() {
        let runtime = RuntimeCredentials::default();
        for number in 0..2 * MAX_REPLACED {
            for _twice in 0..2 {
                runtime.retire(Arc::new(secret(&format!("replaced-value-{number}")))).unwrap();
            }
        }
        assert_eq!(runtime.values().replaced.len(), MAX_REPLACED);
        // What is put in later does not end the search for them.
        runtime
            .capture(&"A".parse().unwrap(), &"s".into(), &"a.test".parse().unwrap(), secret("captured"))
            .unwrap();
        assert_eq!(runtime.values().replaced.len(), MAX_REPLACED);
    }
}
