//! How much may be said in names. A name below an allowed wildcard is the agent's to choose, and the
//! question for it reaches whoever runs the zone: so each wildcard has an allowance of short, plain and few
//! names. A name beyond it is not asked for; the agent gets an address that leads to us, so that a request
//! under that name is judged as any other. Names that a rule spells out say nothing, and cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::Naming;

/// How many different names below one wildcard may be asked for in a window.
const NAMES: usize = 20;
/// How many questions about them, since their order says something too.
const QUESTIONS: usize = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// The longest that may stand below the wildcard's own name, in bytes, dots included.
const LONGEST: usize = 48;
/// The most that one name may say, in bits.
const BITS: f64 = 112.0;

/// What has been asked for of late.
#[derive(Default)]
pub struct Budget {
    windows: Mutex<HashMap<Arc<str>, Window>>,
}

struct Window {
    began: Instant,
    names: HashSet<Box<str>>,
    questions: usize,
}

impl Budget {
    /// Whether `name`, in lower case, may be asked for now.
    pub fn admits(&self, name: &str, naming: &Naming) -> bool {
        self.admits_at(name, naming, Instant::now())
    }

    fn admits_at(&self, name: &str, naming: &Naming, now: Instant) -> bool {
        let parent = match naming {
            Naming::Nowhere => return false,
            Naming::Exactly => return true,
            Naming::Below(parent) => parent,
        };
        let said = name.strip_suffix(&**parent).and_then(|said| said.strip_suffix('.')).unwrap_or(name);
        if said.len() > LONGEST || bits(said) > BITS {
            return false;
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Window { began: now, names: HashSet::new(), questions: 0 };
        // As many windows as the policy has wildcards.
        let window = windows.entry(parent.clone()).or_insert_with(fresh);
        if now.saturating_duration_since(window.began) >= WINDOW {
            *window = fresh();
        }
        window.questions = window.questions.saturating_add(1);
        if window.questions > QUESTIONS {
            return false;
        }
        window.names.contains(said)
            || (window.names.len() < NAMES && window.names.insert(said.to_owned().into_boxed_str()))
    }
}

/// How much `text` says: the entropy of its own letters, times their number. Words repeat letters, random
/// digits hardly do.
fn bits(text: &str) -> f64 {
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

    fn below(parent: &str) -> Naming {
        Naming::Below(parent.into())
    }

    #[test]
    fn a_wildcard_has_so_many_names_a_minute_and_each_may_be_asked_for_again() {
        let (budget, now) = (Budget::default(), Instant::now());
        let admits = |name: &str, at| budget.admits_at(name, &below("example.com"), at);
        for n in 0..NAMES {
            assert!(admits(&format!("n{n}.example.com"), now));
        }
        assert!(!admits("more.example.com", now));
        assert!(admits("n0.example.com", now));
        assert!(budget.admits_at("more.other.net", &below("other.net"), now), "each has its own");
        assert!(admits("more.example.com", now + WINDOW));
    }

    #[test]
    fn the_order_of_the_same_few_names_is_limited_too() {
        let (budget, now) = (Budget::default(), Instant::now());
        let mut admitted = 0;
        for n in 0..QUESTIONS * 3 {
            let name = if n % 3 == 0 { "one.example.com" } else { "zero.example.com" };
            admitted += usize::from(budget.admits_at(name, &below("example.com"), now));
        }
        assert_eq!(admitted, QUESTIONS);
    }

    #[test]
    fn names_of_real_services_pass_and_those_that_spell_data_do_not() {
        for (name, parent) in [
            ("raw.githubusercontent.com", "githubusercontent.com"),
            ("d111111abcdef8.cloudfront.net", "cloudfront.net"),
            ("my-bucket.s3.eu-central-1.amazonaws.com", "amazonaws.com"),
            ("ec2-203-0-113-25.compute-1.amazonaws.com", "amazonaws.com"),
            ("bedrock-runtime.us-east-1.amazonaws.com", "amazonaws.com"),
        ] {
            assert!(Budget::default().admits(name, &below(parent)), "{name}");
        }
        for said in [
            "4eC39HqLyjWDarjtT1zdp7dc4eC39HqL".to_ascii_lowercase(),
            "0123456789abcdef0123456789abcdef".to_owned(),
            "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z".to_owned(),
            "a".repeat(LONGEST + 1),
        ] {
            assert!(
                !Budget::default().admits(&format!("{said}.example.com"), &below("example.com")),
                "{said}"
            );
        }
    }

    #[test]
    fn names_that_a_rule_spells_out_cost_nothing_and_others_have_no_allowance() {
        let budget = Budget::default();
        for n in 0..NAMES * 5 {
            assert!(budget.admits(&format!("{n}{}.example.com", "x".repeat(60)), &Naming::Exactly));
        }
        assert!(!budget.admits("example.com", &Naming::Nowhere));
    }
}
