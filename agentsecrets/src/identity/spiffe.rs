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
pub struct Issued {
    /// Which.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub id: SpiffeId,
    /// The first second.
    pub since: i64,
    /// The last one.
    pub until: i64,
}

/// What the Workload API says, or what comes of asking it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// These are the workload's identities now, the default one first.
    Issued(Vec<Issued>),
    /// It has none, for this reason: what was said before is over.
    Refused(String),
    /// Nobody can be asked, for this reason: what was said before holds until it expires.
    Away(String),
}

/// What is known now: who looks at it sees each change at once.
#[derive(Debug)]
pub struct Known(ArcSwap<Said>);

#[derive(Debug)]
struct Said {
    issued: Vec<Issued>,
    trouble: Option<String>,
    /// Whether the API itself says that there is none.
    is_refused: bool,
}

impl Default for Known {
    fn default() -> Self {
        let trouble = Some("the Workload API has not answered yet".to_owned());
        Self(ArcSwap::from_pointee(Said { issued: Vec::new(), trouble, is_refused: false }))
    }
}

impl Known {
    /// Takes `word` for what is so from now on.
    pub fn hear(&self, word: Word) {
        let said = match word {
            Word::Issued(issued) => Said { issued, trouble: None, is_refused: false },
            Word::Refused(why) => Said { issued: Vec::new(), trouble: Some(why), is_refused: true },
            Word::Away(why) => {
                let before = self.0.load();
                let (issued, is_refused) = (before.issued.clone(), before.is_refused);
                Said { issued, trouble: Some(why), is_refused }
            }
        };
        self.0.store(said.into());
    }

    /// The identities that hold now, the default one first.
    pub fn ids(&self) -> Vec<SpiffeId> {
        self.ids_at(now())
    }

    fn ids_at(&self, now: i64) -> Vec<SpiffeId> {
        let holds = |one: &&Issued| (one.since..=one.until).contains(&now);
        self.0.load().issued.iter().filter(holds).map(|one| one.id.clone()).collect()
    }

    /// Whether it may have identities that nobody can tell us now.
    pub fn is_open(&self) -> bool {
        self.ids().is_empty() && !self.0.load().is_refused
    }

    /// What is known, as it is told to somebody whom it does not suit.
    pub fn told(&self) -> String {
        let ids = self.ids();
        if !ids.is_empty() {
            return format!("this workload is {}", listed(&ids));
        }
        let said = self.0.load();
        match (&said.trouble, said.issued.is_empty()) {
            (Some(why), true) => why.clone(),
            (Some(why), false) => {
                format!("the identity that the Workload API gave is not valid any more, and {why}")
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

    fn issued(path: &str, since: i64, until: i64) -> Issued {
        Issued { id: SpiffeId::new(format!("spiffe://example.org{path}")).unwrap(), since, until }
    }

    fn at(known: &Known, now: i64) -> String {
        listed(&known.ids_at(now))
    }

    #[test]
    fn an_identity_holds_while_it_is_valid_and_not_a_second_longer() {
        let known = Known::default();
        known.hear(Word::Issued(vec![issued("/a", 10, 20), issued("/b", 0, 30)]));
        assert_eq!(at(&known, 9), "spiffe://example.org/b");
        for now in [10, 20] {
            assert_eq!(at(&known, now), "spiffe://example.org/a, spiffe://example.org/b");
        }
        assert_eq!(at(&known, 21), "spiffe://example.org/b");
        assert_eq!(at(&known, 31), "");
        assert_eq!(known.told(), "no identity that the Workload API gives is valid now");
    }

    #[test]
    fn what_was_said_outlives_who_said_it_until_it_expires_but_not_a_refusal() {
        let known = Known::default();
        assert!(known.told().contains("not answered yet") && known.is_open());
        known.hear(Word::Issued(vec![issued("/a", 0, i64::MAX)]));
        known.hear(Word::Away("gone".to_owned()));
        assert_eq!(known.told(), "this workload is spiffe://example.org/a");
        assert!(!known.is_open());
        known.hear(Word::Refused("no longer".to_owned()));
        assert_eq!((known.ids().len(), &*known.told()), (0, "no longer"));
        known.hear(Word::Away("gone".to_owned()));
        assert_eq!((known.ids().len(), &*known.told()), (0, "gone"));
        assert!(!known.is_open(), "that it had none is the last that was said");
        known.hear(Word::Issued(vec![issued("/b", 0, 1)]));
        known.hear(Word::Away("it is gone".to_owned()));
        assert!(known.is_open());
        assert!(known.told().ends_with("not valid any more, and it is gone"), "{}", known.told());
    }

    #[test]
    fn a_word_is_told_whole_and_an_identity_that_is_none_is_not_understood() {
        let words = [
            Word::Issued(vec![issued("/a", 1, 2)]),
            Word::Refused("no".to_owned()),
            Word::Away("gone".to_owned()),
        ];
        for word in words {
            let text = serde_json::to_vec(&word).unwrap();
            assert_eq!(serde_json::from_slice::<Word>(&text).unwrap(), word);
        }
        let odd = r#"{"issued":[{"id":"https://example.org/a","since":1,"until":2}]}"#;
        assert!(serde_json::from_str::<Word>(odd).is_err());
    }
}
