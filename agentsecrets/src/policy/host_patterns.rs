//! Host patterns of rules, and the index that finds an agent's rules by host. Requests and DNS queries use
//! the same index, so that they cannot disagree.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::types::host::Host;
use crate::types::printable::excerpt;

/// The pattern of a rule's `host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostPattern {
    /// This name or address.
    Exact(Host),
    /// Every name below this one, but not itself.
    Wildcard(Arc<str>),
}

impl HostPattern {
    /// Parses `api.stripe.com`, `10.1.2.3`, `[::1]` or `*.example.com`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let error = |reason: &str| {
            format!(
                "host '{}' {reason}; allowed are a name, an IP address, or '*.example.com'",
                excerpt(text)
            )
        };
        let Some(parent) = text.strip_prefix("*.") else {
            let reason = if text.contains('*') {
                "has a '*' that is not the whole first label"
            } else if text.contains("://") || text.contains('/') {
                "is a URL (paths belong under 'paths')"
            } else {
                "is not a host (ports belong under 'ports')"
            };
            return text.parse().map(HostPattern::Exact).map_err(|_| error(reason));
        };
        match parent.parse() {
            Ok(Host::Name(name)) if name.contains('.') => Ok(HostPattern::Wildcard(name)),
            Ok(Host::Name(_)) => Err(error("would cover a whole top-level domain")),
            _ => Err(error("has no host name after '*.'")),
        }
    }

    /// Whether some host matches both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (HostPattern::Exact(one), HostPattern::Exact(two)) => one == two,
            (HostPattern::Wildcard(parent), HostPattern::Exact(Host::Name(name)))
            | (HostPattern::Exact(Host::Name(name)), HostPattern::Wildcard(parent)) => is_below(name, parent),
            (HostPattern::Wildcard(one), HostPattern::Wildcard(two)) => {
                one == two || is_below(one, two) || is_below(two, one)
            }
            _ => false,
        }
    }
}

/// Whether `name` is a subdomain of `parent`.
pub(super) fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

/// The way in which rules name a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// No rule names it.
    None,
    /// A rule names it exactly.
    Exact,
    /// A rule names everything below this name; the agent chose the rest.
    Wildcard(Arc<str>),
}

/// Index of one agent's rules by host.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: HashMap<Host, Vec<usize>>,
    below: HashMap<Arc<str>, Vec<usize>>,
    /// If present, rules name only the hosts that match one of these.
    restriction: Option<Vec<HostPattern>>,
}

impl HostIndex {
    /// Adds rule number `rule`. Rules are added in the order of the file.
    pub(super) fn add(&mut self, pattern: HostPattern, rule: usize) {
        match pattern {
            HostPattern::Exact(host) => self.exact.entry(host).or_default().push(rule),
            HostPattern::Wildcard(parent) => self.below.entry(parent).or_default().push(rule),
        }
    }

    /// Restricts the index to the hosts that match `patterns`.
    pub(super) fn restrict_to(&mut self, patterns: Vec<HostPattern>) {
        self.restriction = Some(patterns);
    }

    /// The rules that name `host`, in the order of the file.
    pub(super) fn rules(&self, host: &Host) -> Cow<'_, [usize]> {
        if self.excludes(host) {
            return Cow::Borrowed(&[]);
        }
        let mut found = Cow::Borrowed(self.exact.get(host).map_or(&[][..], Vec::as_slice));
        for rules in self.wildcard_rules(host) {
            if found.is_empty() {
                found = Cow::Borrowed(rules);
            } else {
                found.to_mut().extend_from_slice(rules);
            }
        }
        if let Cow::Owned(rules) = &mut found {
            rules.sort_unstable();
        }
        found
    }

    /// Every pattern with its rules.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (HostPattern, &[usize])> {
        let exact = self.exact.iter().map(|(host, rules)| (HostPattern::Exact(host.clone()), rules));
        let below = self.below.iter().map(|(parent, rules)| (HostPattern::Wildcard(parent.clone()), rules));
        exact.chain(below).map(|(pattern, rules)| (pattern, rules.as_slice()))
    }

    /// The way in which the rules name `host`.
    pub(super) fn host_match(&self, host: &Host) -> HostMatch {
        if self.excludes(host) {
            return HostMatch::None;
        }
        if self.exact.contains_key(host) {
            return HostMatch::Exact;
        }
        let Host::Name(name) = host else { return HostMatch::None };
        let below = parent_domains(name).find_map(|parent| self.below.get_key_value(parent));
        below.map_or(HostMatch::None, |(parent, _)| HostMatch::Wildcard(parent.clone()))
    }

    fn excludes(&self, host: &Host) -> bool {
        self.restriction.as_ref().is_some_and(|patterns| !matches_any(patterns, host))
    }

    /// The rules of every `*.parent` that matches `host`, by whole labels.
    fn wildcard_rules(&self, host: &Host) -> impl Iterator<Item = &[usize]> {
        let name = match host {
            Host::Name(name) if !self.below.is_empty() => &**name,
            _ => "",
        };
        parent_domains(name).filter_map(|parent| self.below.get(parent).map(Vec::as_slice))
    }
}

/// The parent domains of `name`, the nearest first.
fn parent_domains(name: &str) -> impl Iterator<Item = &str> {
    let above = std::iter::successors(name.split_once('.'), |(_, parent)| parent.split_once('.'));
    above.map(|(_, parent)| parent)
}

/// A list of host patterns.
#[derive(Debug, Clone)]
pub struct HostList(Vec<HostPattern>);

impl HostList {
    /// Parses the patterns. The error names the invalid one and the reason.
    pub fn read(hosts: &[String]) -> Result<Self, String> {
        hosts.iter().map(|host| HostPattern::parse(host)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them matches `host`.
    pub fn covers(&self, host: &Host) -> bool {
        matches_any(&self.0, host)
    }
}

/// Whether one of `patterns` matches `host`.
fn matches_any(patterns: &[HostPattern], host: &Host) -> bool {
    let exact = HostPattern::Exact(host.clone());
    patterns.iter().any(|pattern| pattern.overlaps(&exact))
}
