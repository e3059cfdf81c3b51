//! Limits the data that DNS names can carry out. The agent chooses the labels below an allowed wildcard, and the
//! query for them reaches the zone's owner; so each wildcard has a budget of few, short and plain names. A name
//! beyond the budget is not queried: it gets a sinkhole address, and a request under it is judged like any other.
//! Names that a rule spells out carry no data, and cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::policy::HostMatch;
use crate::types::sync::MutexExt;

/// The number of different names below one wildcard in a window.
const MAX_NAMES: usize = 20;
/// The number of queries for them in a window, because their order carries data too.
const MAX_QUERIES: usize = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// The longest labels below the wildcard's own name, in bytes, dots included.
const MAX_LABELS_LEN: usize = 48;
/// The most data in the labels of one name.
const MAX_ENTROPY_BITS: f64 = 112.0;

/// The queries of the current window of each wildcard.
#[derive(Default)]
pub struct QueryBudget {
    windows: Mutex<HashMap<Arc<str>, Window>>,
}

struct Window {
    started: Instant,
    names: HashSet<Box<str>>,
    queries: usize,
}

impl QueryBudget {
    /// Whether `name`, in lower case, may be queried now. Counts the query.
    pub fn admits(&self, name: &str, naming: &HostMatch) -> bool {
        self.admits_at(name, naming, Instant::now())
    }

    fn admits_at(&self, name: &str, naming: &HostMatch, now: Instant) -> bool {
        let parent = match naming {
            HostMatch::None => return false,
            HostMatch::Exact => return true,
            HostMatch::Wildcard(parent) => parent,
        };
        let labels = name.strip_suffix(&**parent).and_then(|labels| labels.strip_suffix('.')).unwrap_or(name);
        if labels.len() > MAX_LABELS_LEN || entropy_bits(labels) > MAX_ENTROPY_BITS {
            return false;
        }
        let mut windows = self.windows.lock_ignoring_poison();
        let fresh = || Window { started: now, names: HashSet::new(), queries: 0 };
        // As many windows as the policy has wildcards.
        let window = windows.entry(parent.clone()).or_insert_with(fresh);
        if now.saturating_duration_since(window.started) >= WINDOW {
            *window = fresh();
        }
        window.queries = window.queries.saturating_add(1);
        if window.queries > MAX_QUERIES {
            return false;
        }
        window.names.contains(labels)
            || (window.names.len() < MAX_NAMES && window.names.insert(labels.to_owned().into_boxed_str()))
    }
}

/// The data in `text`: the entropy of its own letters, times their number. Words repeat letters, random
/// digits hardly do.
fn entropy_bits(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    for byte in text.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let length = text.len() as f64;
    let seen = counts.into_iter().filter(|count| *count > 0).map(f64::from);
    seen.map(|count| count * (length / count).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(parent: &str) -> HostMatch {
        HostMatch::Wildcard(parent.into())
    }

    #[test]
    fn wildcard_admits_limited_names_per_window_and_repeats() {
        let (budget, now) = (QueryBudget::default(), Instant::now());
        let admits = |name: &str, at| budget.admits_at(name, &below("example.com"), at);
        for n in 0..MAX_NAMES {
            assert!(admits(&format!("n{n}.example.com"), now));
        }
        assert!(!admits("more.example.com", now));
        assert!(admits("n0.example.com", now));
        assert!(budget.admits_at("more.other.net", &below("other.net"), now), "each has its own");
        assert!(admits("more.example.com", now + WINDOW));
    }

    #[test]
    fn repeated_queries_are_limited() {
        let (budget, now) = (QueryBudget::default(), Instant::now());
        let mut admitted = 0;
        for n in 0..MAX_QUERIES * 3 {
            let name = if n % 3 == 0 { "one.example.com" } else { "zero.example.com" };
            admitted += usize::from(budget.admits_at(name, &below("example.com"), now));
        }
        assert_eq!(admitted, MAX_QUERIES);
    }

    #[test]
    fn service_name_is_admitted_and_encoded_data_is_not() {
        for (name, parent) in [
            ("raw.githubusercontent.com", "githubusercontent.com"),
            ("d111111abcdef8.cloudfront.net", "cloudfront.net"),
            ("my-bucket.s3.eu-central-1.amazonaws.com", "amazonaws.com"),
            ("ec2-203-0-113-25.compute-1.amazonaws.com", "amazonaws.com"),
            ("bedrock-runtime.us-east-1.amazonaws.com", "amazonaws.com"),
        ] {
            assert!(QueryBudget::default().admits(name, &below(parent)), "{name}");
        }
        for said in [
            "4eC39HqLyjWDarjtT1zdp7dc4eC39HqL".to_ascii_lowercase(),
            "0123456789abcdef0123456789abcdef".to_owned(),
            "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z".to_owned(),
            "a".repeat(MAX_LABELS_LEN + 1),
        ] {
            assert!(
                !QueryBudget::default().admits(&format!("{said}.example.com"), &below("example.com")),
                "{said}"
            );
        }
    }

    #[test]
    fn exact_name_is_free_and_unlisted_name_is_refused() {
        let budget = QueryBudget::default();
        for n in 0..MAX_NAMES * 5 {
            assert!(budget.admits(&format!("{n}{}.example.com", "x".repeat(60)), &HostMatch::Exact));
        }
        assert!(!budget.admits("example.com", &HostMatch::None));
    }
}
