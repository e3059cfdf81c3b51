//! The SPIFFE identities of the workload that a service is part of, as its Workload API last told them. They are
//! those of who asks, which is us: of the pod, alike for all agents in it. What an agent says of itself counts for
//! nothing. An identity holds while every certificate that came with it is valid, and no longer than the API
//! lets it.

use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spiffe::SpiffeId;

/// An identity, and when it holds, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpiffeIdentity {
    /// The SPIFFE id.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub id: SpiffeId,
    /// The first second.
    pub since: i64,
    /// The last one.
    pub until: i64,
}

/// A message of the Workload API, or the result of asking it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityUpdate {
    /// These are the workload's identities now, the default one first.
    Issued(Vec<SpiffeIdentity>),
    /// It has none, for this reason: what was said before is over.
    Refused(String),
    /// Nobody can be asked, for this reason: what was said before holds until it expires.
    Away(String),
}

/// The current identities. Readers see each change at once.
#[derive(Debug)]
pub struct CurrentIdentities(ArcSwap<Said>);

#[derive(Debug)]
struct Said {
    issued: Vec<SpiffeIdentity>,
    trouble: Option<String>,
    /// Whether the API itself says that there is none.
    is_refused: bool,
}

impl Default for CurrentIdentities {
    fn default() -> Self {
        let trouble = Some("the Workload API has not answered yet".to_owned());
        Self(ArcSwap::from_pointee(Said { issued: Vec::new(), trouble, is_refused: false }))
    }
}

impl CurrentIdentities {
    /// Takes `word` for what is so from now on.
    pub fn apply(&self, word: IdentityUpdate) {
        let said = match word {
            IdentityUpdate::Issued(issued) => Said { issued, trouble: None, is_refused: false },
            IdentityUpdate::Refused(reason) => {
                Said { issued: Vec::new(), trouble: Some(reason), is_refused: true }
            }
            IdentityUpdate::Away(reason) => {
                let before = self.0.load();
                let (issued, is_refused) = (before.issued.clone(), before.is_refused);
                Said { issued, trouble: Some(reason), is_refused }
            }
        };
        self.0.store(said.into());
    }

    /// The identities that hold now, the default one first.
    pub fn ids(&self) -> Vec<SpiffeId> {
        self.ids_at(now())
    }

    fn ids_at(&self, now: i64) -> Vec<SpiffeId> {
        let holds = |one: &&SpiffeIdentity| (one.since..=one.until).contains(&now);
        self.0.load().issued.iter().filter(holds).map(|one| one.id.clone()).collect()
    }

    /// Whether it may have identities that nobody can tell us now.
    pub fn is_open(&self) -> bool {
        self.ids().is_empty() && !self.0.load().is_refused
    }

    /// Describes the current identities, for an error message.
    pub fn describe(&self) -> String {
        let ids = self.ids();
        if !ids.is_empty() {
            return format!("this workload is {}", listed(&ids));
        }
        let said = self.0.load();
        match (&said.trouble, said.issued.is_empty()) {
            (Some(reason), true) => reason.clone(),
            (Some(reason), false) => {
                format!("the identity that the Workload API gave is not valid any more, and {reason}")
            }
            (None, _) => "no identity that the Workload API gives is valid now".to_owned(),
        }
    }
}

/// Identities in a row.
pub fn listed(ids: &[SpiffeId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The time, in seconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|now| now.as_secs());
    now.ok().and_then(|now| now.try_into().ok()).unwrap_or(i64::MAX)
}

fn as_text<S: Serializer>(id: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SpiffeId, D::Error> {
    String::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(path: &str, since: i64, until: i64) -> SpiffeIdentity {
        SpiffeIdentity { id: SpiffeId::new(format!("spiffe://example.org{path}")).unwrap(), since, until }
    }

    fn at(known: &CurrentIdentities, now: i64) -> String {
        listed(&known.ids_at(now))
    }

    #[test]
    fn identity_holds_until_expiry() {
        let known = CurrentIdentities::default();
        known.apply(IdentityUpdate::Issued(vec![issued("/a", 10, 20), issued("/b", 0, 30)]));
        assert_eq!(at(&known, 9), "spiffe://example.org/b");
        for now in [10, 20] {
            assert_eq!(at(&known, now), "spiffe://example.org/a, spiffe://example.org/b");
        }
        assert_eq!(at(&known, 21), "spiffe://example.org/b");
        assert_eq!(at(&known, 31), "");
        assert_eq!(known.describe(), "no identity that the Workload API gives is valid now");
    }

    #[test]
    fn identities_outlive_their_source_until_expiry() {
        let known = CurrentIdentities::default();
        assert!(known.describe().contains("not answered yet") && known.is_open());
        known.apply(IdentityUpdate::Issued(vec![issued("/a", 0, i64::MAX)]));
        known.apply(IdentityUpdate::Away("gone".to_owned()));
        assert_eq!(known.describe(), "this workload is spiffe://example.org/a");
        assert!(!known.is_open());
        known.apply(IdentityUpdate::Refused("no longer".to_owned()));
        assert_eq!((known.ids().len(), &*known.describe()), (0, "no longer"));
        known.apply(IdentityUpdate::Away("gone".to_owned()));
        assert_eq!((known.ids().len(), &*known.describe()), (0, "gone"));
        assert!(!known.is_open(), "that it had none is the last that was said");
        known.apply(IdentityUpdate::Issued(vec![issued("/b", 0, 1)]));
        known.apply(IdentityUpdate::Away("it is gone".to_owned()));
        assert!(known.is_open());
        assert!(known.describe().ends_with("not valid any more, and it is gone"), "{}", known.describe());
    }

    #[test]
    fn update_round_trips_and_invalid_identity_is_refused() {
        let words = [
            IdentityUpdate::Issued(vec![issued("/a", 1, 2)]),
            IdentityUpdate::Refused("no".to_owned()),
            IdentityUpdate::Away("gone".to_owned()),
        ];
        for word in words {
            let text = serde_json::to_vec(&word).unwrap();
            assert_eq!(serde_json::from_slice::<IdentityUpdate>(&text).unwrap(), word);
        }
        let odd = r#"{"issued":[{"id":"https://example.org/a","since":1,"until":2}]}"#;
        assert!(serde_json::from_str::<IdentityUpdate>(odd).is_err());
    }
}
