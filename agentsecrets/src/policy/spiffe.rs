//! What an entry asks of the SPIFFE identity of the workload that a caller is part of. Its trust domain is always
//! written out: whoever rules another one gives what names there they like.

use globset::GlobMatcher;
use spiffe::{SpiffeId, TrustDomain};

use crate::identity::Caller;

use super::matching::glob;
use crate::types::printable::excerpt;

/// What a policy calls it.
pub(super) const FACT: &str = "spiffe";
/// What every identity begins with.
const SCHEME: &str = "spiffe://";

/// An identity, or all those of one trust domain whose path is like this.
#[derive(Debug)]
pub(super) struct Identity {
    trust_domain: TrustDomain,
    path: GlobMatcher,
}

impl Identity {
    /// Reads `spiffe://example.org/ns/agents/sa/coder`, in whose path patterns may stand.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("spiffe '{}' {why}; write it as spiffe://example.org/ns/agents/sa/coder", excerpt(text))
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("does not begin with spiffe://"))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if domain.contains(['*', '?', '{']) {
            return Err(wrong("has a pattern in its trust domain, which is always written out"));
        }
        let trust_domain =
            TrustDomain::new(domain).map_err(|why| wrong(&format!("has no trust domain: {why}")))?;
        if path.trim_matches('/').is_empty() {
            return Err(wrong("names no workload: '/**' after the trust domain is every one of it"));
        }
        // What a pattern leaves open is put there by who gives identities; the rest must be able to match.
        let filled: String =
            path.chars().map(|c| if matches!(c, '*' | '?' | '{' | '}' | ',') { 'x' } else { c }).collect();
        SpiffeId::new(format!("{SCHEME}{domain}{filled}"))
            .map_err(|why| wrong(&format!("is no identity: {why}")))?;
        Ok(Self { trust_domain, path: glob(path)?.compile_matcher() })
    }

    /// Whether it is one of those of the workload of `caller` now. Where nobody knows of one it is not.
    pub(super) fn holds_for(&self, caller: &Caller) -> bool {
        caller.standing.spiffe.iter().flat_map(|known| known.ids()).any(|id| self.is(&id))
    }

    fn is(&self, id: &SpiffeId) -> bool {
        id.is_member_of(&self.trust_domain) && self.path.is_match(id.path())
    }
}

/// What to say beside that `fact` does not hold for `caller`, if it is this one.
pub(super) fn why_missing(fact: &str, caller: &Caller) -> Option<String> {
    (fact == FACT).then(|| format!(" (match.{FACT}: {})", why_not(caller)))
}

/// Whether an entry that fails by `fact` may be the one that is meant for `caller`: nobody can say who it is now.
pub(super) fn is_open(fact: &str, caller: &Caller) -> bool {
    fact == FACT && caller.standing.spiffe.as_ref().is_some_and(|known| known.is_open())
}

fn why_not(caller: &Caller) -> String {
    match &caller.standing.spiffe {
        Some(known) => known.told(),
        None => {
            "nobody asks a Workload API here; `agentsecrets sidecar --spiffe` does, in the pod itself".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::spiffe::{Issued, Known, Word};

    fn holds(pattern: &str, id: &str) -> bool {
        Identity::read(pattern).unwrap().is(&SpiffeId::new(id).unwrap())
    }

    #[test]
    fn an_identity_is_itself_alone() {
        let coder = "spiffe://example.org/ns/agents/sa/coder";
        assert!(holds(coder, coder));
        assert!(holds("spiffe://Example.ORG/ns/agents/sa/coder", coder), "case is nothing in a trust domain");
        for other in [
            "spiffe://example.org/ns/agents/sa/coder2",
            "spiffe://example.org/ns/agents/sa/coder/x",
            "spiffe://example.org/ns/agents/sa/Coder",
            "spiffe://example.org/ns/agents/sa",
            "spiffe://example.org.evil.example/ns/agents/sa/coder",
            "spiffe://evil.example/ns/agents/sa/coder",
            "spiffe://org/ns/agents/sa/coder",
        ] {
            assert!(!holds(coder, other), "{other}");
        }
    }

    #[test]
    fn a_pattern_stays_in_its_trust_domain_and_a_star_in_its_segment() {
        let one = "spiffe://example.org/ns/agents/*";
        assert!(holds(one, "spiffe://example.org/ns/agents/coder"));
        assert!(!holds(one, "spiffe://example.org/ns/agents/sa/coder"));
        assert!(!holds(one, "spiffe://example.org/ns/agents"));
        let all = "spiffe://example.org/ns/agents/**";
        assert!(holds(all, "spiffe://example.org/ns/agents/sa/coder"));
        assert!(!holds(all, "spiffe://example.org/ns/agents2/sa/coder"));
        assert!(!holds("spiffe://example.org/**", "spiffe://evil.example/ns/agents/sa/coder"));
        assert!(holds("spiffe://example.org/ns/{agents,tests}/sa/*", "spiffe://example.org/ns/tests/sa/a"));
    }

    #[test]
    fn what_no_identity_can_be_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "does not begin with spiffe://"),
            ("example.org/a", "does not begin with spiffe://"),
            ("https://example.org/a", "does not begin with spiffe://"),
            ("spiffe:///a", "no trust domain"),
            ("spiffe://*.example.org/a", "always written out"),
            ("spiffe://**", "always written out"),
            ("spiffe://user@example.org/a", "no trust domain"),
            ("spiffe://example.org:443/a", "no trust domain"),
            ("spiffe://example.org", "names no workload"),
            ("spiffe://example.org/", "names no workload"),
            ("spiffe://example.org/a/", "trailing slash"),
            ("spiffe://example.org/a//b", "empty segments"),
            ("spiffe://example.org/a/../b", "dot segments"),
            ("spiffe://example.org/a?b#c", "characters"),
            ("spiffe://example.org/a%2fb", "characters"),
            ("spiffe://example.org/a b", "characters"),
            ("spiffe://example.org/[ab]", "characters"),
            ("spiffe://example.org/a**", "whole segment"),
            ("spiffe://example.org/{a", "not a usable pattern"),
        ] {
            let told = Identity::read(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    #[test]
    fn it_is_of_who_asks_now_and_of_nobody_where_none_is_known() {
        let wanted = Identity::read("spiffe://example.org/coder").unwrap();
        let mut caller = Caller::for_test();
        assert!(!wanted.holds_for(&caller) && why_not(&caller).contains("--spiffe"));
        let known = Arc::new(Known::default());
        caller.standing.spiffe = Some(known.clone());
        assert!(!wanted.holds_for(&caller) && why_not(&caller).contains("not answered"));
        let issued = |path: &str| {
            let id = SpiffeId::new(format!("spiffe://example.org/{path}")).unwrap();
            Issued { id, since: 0, until: i64::MAX }
        };
        known.hear(Word::Issued(vec![issued("other"), issued("coder")]));
        assert!(wanted.holds_for(&caller), "a workload may have several");
        known.hear(Word::Issued(vec![issued("other")]));
        assert!(!wanted.holds_for(&caller) && why_not(&caller).contains("spiffe://example.org/other"));
    }

    /// Entries are tried in their order: one that is not known to be another's is not passed over.
    #[test]
    fn no_other_entry_is_taken_while_nobody_can_say_who_it_is() {
        let text = "version: 1\nagents:\n  - name: first\n    match: { uid: 7, spiffe: 'spiffe://example.org/a' }\n  \
                    - name: narrow\n    match: { spiffe: 'spiffe://example.org/coder' }\n  - name: wide\n";
        let policy = super::super::Policy::parse(text, std::path::Path::new("p")).unwrap();
        let known = Arc::new(Known::default());
        let mut caller = Caller::for_test();
        let agent = |caller: &Caller| policy.agent_for(caller).map(|agent| agent.name().to_string());
        assert_eq!(agent(&caller).unwrap(), "wide", "here nobody is asked");
        caller.standing.spiffe = Some(known.clone());
        let told = agent(&caller).unwrap_err().message;
        assert!(told.contains("not answered yet"), "{told}");
        let id = SpiffeId::new("spiffe://example.org/coder").unwrap();
        known.hear(Word::Issued(vec![Issued { id, since: 0, until: i64::MAX }]));
        assert_eq!(agent(&caller).unwrap(), "narrow");
        known.hear(Word::Refused("no".to_owned()));
        assert_eq!(agent(&caller).unwrap(), "wide");
    }

    proptest! {
        /// Whatever stands in a policy: it is refused, or holds for no other trust domain.
        #[test]
        fn no_text_reaches_into_another_trust_domain(text in "(spiffe://)?[a-z.*?{},/-]{0,24}", path in "(/[a-z]{1,3}){1,3}") {
            if let Ok(wanted) = Identity::read(&text) {
                let id = SpiffeId::new(format!("spiffe://evil.invalid{path}")).unwrap();
                prop_assert!(!wanted.is(&id));
            }
        }

        /// Without a pattern it holds for what is written, and for nothing that is longer or shorter.
        #[test]
        fn what_is_written_out_is_one_identity(path in "(/[a-zA-Z0-9_-]{1,4}){1,4}", other in "(/[a-zA-Z0-9_-]{1,4}){1,4}") {
            let text = format!("spiffe://example.org{path}");
            prop_assert!(holds(&text, &text));
            prop_assert_eq!(holds(&text, &format!("spiffe://example.org{other}")), path == other);
            let (longer, below) = (format!("{text}x"), format!("{text}/x"));
            prop_assert!(!holds(&text, &longer) && !holds(&text, &below) && !holds(&longer, &text));
        }
    }
}
