//! Matches the SPIFFE identity of a caller's workload. The trust domain is never a pattern: the operator of
//! another trust domain assigns any name there.

use globset::GlobMatcher;
use spiffe::{SpiffeId, TrustDomain};

use crate::identity::Caller;

use super::glob::parse_glob;
use crate::types::printable::excerpt;

/// The name of the fact in a policy.
pub(super) const FACT: &str = "spiffe";
const SCHEME: &str = "spiffe://";

/// One trust domain, and a pattern of paths in it.
#[derive(Debug)]
pub(super) struct SpiffeMatcher {
    trust_domain: TrustDomain,
    path: GlobMatcher,
}

impl SpiffeMatcher {
    /// Parses `spiffe://example.org/ns/agents/sa/coder`, with an optional pattern in the path.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let error = |reason: &str| {
            format!(
                "spiffe '{}' {reason}; write it as spiffe://example.org/ns/agents/sa/coder",
                excerpt(text)
            )
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| error("does not begin with spiffe://"))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if domain.contains(['*', '?', '{']) {
            return Err(error("has a pattern in its trust domain, which is always written out"));
        }
        let trust_domain =
            TrustDomain::new(domain).map_err(|reason| error(&format!("has no trust domain: {reason}")))?;
        if path.trim_matches('/').is_empty() {
            return Err(error("names no workload: '/**' after the trust domain is every one of it"));
        }
        // The pattern characters are replaced by a letter, so that the rest is checked as an identity.
        let filled: String =
            path.chars().map(|c| if matches!(c, '*' | '?' | '{' | '}' | ',') { 'x' } else { c }).collect();
        SpiffeId::new(format!("{SCHEME}{domain}{filled}"))
            .map_err(|reason| error(&format!("is no identity: {reason}")))?;
        Ok(Self { trust_domain, path: parse_glob(path)?.compile_matcher() })
    }

    /// Whether one of the current identities of `caller` matches. A caller without a known identity does not.
    pub(super) fn matches(&self, caller: &Caller) -> bool {
        caller.attributes.spiffe.iter().flat_map(|known| known.ids()).any(|id| self.matches_id(&id))
    }

    fn matches_id(&self, id: &SpiffeId) -> bool {
        id.is_member_of(&self.trust_domain) && self.path.is_match(id.path())
    }
}

/// The detail for a message that `fact` does not hold for `caller`, if it is this fact.
pub(super) fn mismatch_detail(fact: &str, caller: &Caller) -> Option<String> {
    (fact == FACT).then(|| format!(" (match.{FACT}: {})", describe_ids(caller)))
}

/// Whether `fact` does not hold only because the identity of `caller` is not known yet.
pub(super) fn is_undetermined(fact: &str, caller: &Caller) -> bool {
    fact == FACT && caller.attributes.spiffe.as_ref().is_some_and(|known| known.is_open())
}

fn describe_ids(caller: &Caller) -> String {
    match &caller.attributes.spiffe {
        Some(known) => known.describe(),
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
    use crate::identity::spiffe::{CurrentIdentities, IdentityUpdate, SpiffeIdentity};

    fn holds(pattern: &str, id: &str) -> bool {
        SpiffeMatcher::parse(pattern).unwrap().matches_id(&SpiffeId::new(id).unwrap())
    }

    #[test]
    fn plain_identity_matches_only_itself() {
        let coder = "spiffe://example.org/ns/agents/sa/coder";
        assert!(holds(coder, coder));
        assert!(holds("spiffe://Example.ORG/ns/agents/sa/coder", coder), "trust domains ignore case");
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
    fn pattern_stays_in_trust_domain_and_star_in_segment() {
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
    fn invalid_identity_is_refused_with_reason() {
        for (text, reason) in [
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
            let message = SpiffeMatcher::parse(text).unwrap_err();
            assert!(message.contains(reason), "{text}: {message}");
        }
    }

    #[test]
    fn current_identity_counts_and_unknown_never_matches() {
        let matcher = SpiffeMatcher::parse("spiffe://example.org/coder").unwrap();
        let mut caller = Caller::for_test();
        assert!(!matcher.matches(&caller) && describe_ids(&caller).contains("--spiffe"));
        let known = Arc::new(CurrentIdentities::default());
        caller.attributes.spiffe = Some(known.clone());
        assert!(!matcher.matches(&caller) && describe_ids(&caller).contains("not answered"));
        let issued = |path: &str| {
            let id = SpiffeId::new(format!("spiffe://example.org/{path}")).unwrap();
            SpiffeIdentity { id, since: 0, until: i64::MAX }
        };
        known.apply(IdentityUpdate::Issued(vec![issued("other"), issued("coder")]));
        assert!(matcher.matches(&caller), "a workload may have several");
        known.apply(IdentityUpdate::Issued(vec![issued("other")]));
        assert!(!matcher.matches(&caller) && describe_ids(&caller).contains("spiffe://example.org/other"));
    }

    /// Entries are tried in order. One whose match is undetermined is not skipped.
    #[test]
    fn undetermined_entry_is_not_skipped() {
        let text = "version: 1\nagents:\n  - name: first\n    match: { uid: 7, spiffe: 'spiffe://example.org/a' }\n  \
                    - name: narrow\n    match: { spiffe: 'spiffe://example.org/coder' }\n  - name: wide\n";
        let policy = super::super::Policy::parse(text, std::path::Path::new("p")).unwrap();
        let known = Arc::new(CurrentIdentities::default());
        let mut caller = Caller::for_test();
        let agent = |caller: &Caller| policy.agent_for(caller).map(|agent| agent.name().to_string());
        assert_eq!(agent(&caller).unwrap(), "wide", "no Workload API");
        caller.attributes.spiffe = Some(known.clone());
        let message = agent(&caller).unwrap_err().message;
        assert!(message.contains("not answered yet"), "{message}");
        let id = SpiffeId::new("spiffe://example.org/coder").unwrap();
        known.apply(IdentityUpdate::Issued(vec![SpiffeIdentity { id, since: 0, until: i64::MAX }]));
        assert_eq!(agent(&caller).unwrap(), "narrow");
        known.apply(IdentityUpdate::Refused("no".to_owned()));
        assert_eq!(agent(&caller).unwrap(), "wide");
    }

    proptest! {
        /// Any text is refused or matches no other trust domain.
        #[test]
        fn no_pattern_matches_another_trust_domain(text in "(spiffe://)?[a-z.*?{},/-]{0,24}", path in "(/[a-z]{1,3}){1,3}") {
            if let Ok(matcher) = SpiffeMatcher::parse(&text) {
                let id = SpiffeId::new(format!("spiffe://evil.invalid{path}")).unwrap();
                prop_assert!(!matcher.matches_id(&id));
            }
        }

        /// Without a pattern only the written identity matches, nothing longer or shorter.
        #[test]
        fn text_without_pattern_is_one_identity(path in "(/[a-zA-Z0-9_-]{1,4}){1,4}", other in "(/[a-zA-Z0-9_-]{1,4}){1,4}") {
            let text = format!("spiffe://example.org{path}");
            prop_assert!(holds(&text, &text));
            prop_assert_eq!(holds(&text, &format!("spiffe://example.org{other}")), path == other);
            let (longer, below) = (format!("{text}x"), format!("{text}/x"));
            prop_assert!(!holds(&text, &longer) && !holds(&text, &below) && !holds(&longer, &text));
        }
    }
}
