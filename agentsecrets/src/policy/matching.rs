//! Which hosts a rule names, and which programs an agent entry is for. The same index answers for
//! requests and for names that are to be resolved, so that the two cannot disagree.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use globset::{Glob, GlobBuilder, GlobMatcher};

use crate::identity::Caller;
use crate::identity::image::Wanted;
use crate::types::host::Host;

use super::spiffe::{self, Identity};
use crate::policy::exe_pattern;
use crate::policy::pod::PodFacts;
use crate::policy::project_restriction::covers;
use crate::types::printable::excerpt;

/// What stands behind `host:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostPattern {
    /// This name or address.
    Exact(Host),
    /// Every name below this one, not itself.
    Below(Arc<str>),
}

impl HostPattern {
    /// Reads `api.stripe.com`, `10.1.2.3`, `[::1]` or `*.example.com`.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("host '{}' {why}; allowed are a name, an IP address, or '*.example.com'", excerpt(text))
        };
        let Some(parent) = text.strip_prefix("*.") else {
            let why = if text.contains('*') {
                "has a '*' that is not the whole first label"
            } else if text.contains("://") || text.contains('/') {
                "is a URL (paths belong under 'paths')"
            } else {
                "is not a host (ports belong under 'ports')"
            };
            return text.parse().map(HostPattern::Exact).map_err(|_| wrong(why));
        };
        match parent.parse() {
            Ok(Host::Name(name)) if name.contains('.') => Ok(HostPattern::Below(name)),
            Ok(Host::Name(_)) => Err(wrong("would cover a whole top-level domain")),
            _ => Err(wrong("has no host name after '*.'")),
        }
    }
}

impl HostPattern {
    /// Whether some host is covered by both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (HostPattern::Exact(one), HostPattern::Exact(two)) => one == two,
            (HostPattern::Below(parent), HostPattern::Exact(Host::Name(name)))
            | (HostPattern::Exact(Host::Name(name)), HostPattern::Below(parent)) => is_below(name, parent),
            (HostPattern::Below(one), HostPattern::Below(two)) => {
                one == two || is_below(one, two) || is_below(two, one)
            }
            _ => false,
        }
    }
}

fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

/// How rules name a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// No rule does.
    Nowhere,
    /// A rule spells it out.
    Exactly,
    /// A rule names all that is below this name; the agent chose the rest.
    Below(Arc<str>),
}

/// The rules of one agent, found by host.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Host, Vec<usize>>,
    below: HashMap<Arc<str>, Vec<usize>>,
    /// Outside of these, where there are any, no rule names a host.
    within: Option<Vec<HostPattern>>,
}

impl Hosts {
    /// Enters rule number `rule`; rules are entered in the order of the file.
    pub(super) fn add(&mut self, pattern: HostPattern, rule: usize) {
        match pattern {
            HostPattern::Exact(host) => self.exact.entry(host).or_default().push(rule),
            HostPattern::Below(parent) => self.below.entry(parent).or_default().push(rule),
        }
    }

    /// Lets rules name those hosts alone that `patterns` cover.
    pub(super) fn keep_within(&mut self, patterns: Vec<HostPattern>) {
        self.within = Some(patterns);
    }

    /// The rules that name `host`, in the order of the file.
    pub(super) fn rules(&self, host: &Host) -> Cow<'_, [usize]> {
        if self.excludes(host) {
            return Cow::Borrowed(&[]);
        }
        let mut found = Cow::Borrowed(self.exact.get(host).map_or(&[][..], Vec::as_slice));
        for rules in self.wildcards(host) {
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

    /// Every pattern with the rules that name it.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (HostPattern, &[usize])> {
        let exact = self.exact.iter().map(|(host, rules)| (HostPattern::Exact(host.clone()), rules));
        let below = self.below.iter().map(|(parent, rules)| (HostPattern::Below(parent.clone()), rules));
        exact.chain(below).map(|(pattern, rules)| (pattern, rules.as_slice()))
    }

    /// How the rules name `host`.
    pub(super) fn naming(&self, host: &Host) -> Naming {
        if self.excludes(host) {
            return Naming::Nowhere;
        }
        if self.exact.contains_key(host) {
            return Naming::Exactly;
        }
        let Host::Name(name) = host else { return Naming::Nowhere };
        let below = parents(name).find_map(|parent| self.below.get_key_value(parent));
        below.map_or(Naming::Nowhere, |(parent, _)| Naming::Below(parent.clone()))
    }

    fn excludes(&self, host: &Host) -> bool {
        self.within.as_ref().is_some_and(|within| !covers(within, host))
    }

    /// The rules of every `*.parent` that covers `host`, whole labels at a time.
    fn wildcards(&self, host: &Host) -> impl Iterator<Item = &[usize]> {
        let name = match host {
            Host::Name(name) if !self.below.is_empty() => &**name,
            _ => "",
        };
        parents(name).filter_map(|parent| self.below.get(parent).map(Vec::as_slice))
    }
}

/// Every name above `name`, the nearest first.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    let above = std::iter::successors(name.split_once('.'), |(_, parent)| parent.split_once('.'));
    above.map(|(_, parent)| parent)
}

/// What must be true of a program for an agent entry to be its entry.
#[derive(Debug, Default)]
pub(super) struct Match {
    pub exe: Option<GlobMatcher>,
    pub sha256: Option<String>,
    pub uid: Option<u32>,
    pub cgroup: Option<GlobMatcher>,
    /// The beginning of its id.
    pub container: Option<String>,
    pub image: Option<Wanted>,
    pub session: bool,
    pub token: bool,
    pub trusted: bool,
    pub pod: Option<PodFacts>,
    pub spiffe: Option<Identity>,
}

impl Match {
    /// The first fact that does not hold, or `None` if all hold.
    pub(super) fn fails_by(&self, caller: &Caller) -> Option<&'static str> {
        let process = &caller.process;
        let exe = |glob: &GlobMatcher| exe_pattern::holds(glob, &process.exe.to_string_lossy());
        let cgroup = |glob: &GlobMatcher| is_plain(&process.cgroup) && glob.is_match(&process.cgroup);
        let container =
            |id: &String| process.container().is_some_and(|container| container.id.starts_with(id.as_str()));
        let image = |wanted: &Wanted| process.image.as_ref().is_some_and(|image| wanted.is(image));
        if self.uid.is_some_and(|uid| uid != process.uid) {
            Some("uid")
        } else if !self.exe.as_ref().is_none_or(exe) {
            Some("exe")
        } else if !self.cgroup.as_ref().is_none_or(cgroup) {
            Some("cgroup")
        } else if !self.container.as_ref().is_none_or(container) {
            Some("container")
        } else if !self.image.as_ref().is_none_or(image) {
            Some("image")
        } else if !self.pod.as_ref().is_none_or(|facts| facts.hold_for(caller)) {
            Some("pod")
        } else if self.sha256.as_ref().is_some_and(|hash| *hash != process.sha256) {
            Some("sha256")
        } else if self.session && caller.session.is_empty() {
            Some("session")
        } else if self.token && caller.standing.token.is_none() {
            // The token of another agent would have made it that agent.
            Some("token")
        } else if self.trusted && !caller.standing.trusted {
            Some("trusted")
        } else if !self.spiffe.as_ref().is_none_or(|identity| identity.holds_for(caller)) {
            // The last: an entry that is another's anyway does not depend on what is not known.
            Some(spiffe::FACT)
        } else {
            None
        }
    }
}

/// Reads a glob over `/`-separated names: `*` and `?` stay within a segment, `**` is a whole segment and
/// crosses them, `{a,b}` chooses.
pub(crate) fn glob(text: &str) -> Result<Glob, String> {
    let wrong = |why: &str| format!("'{}' is not a usable pattern: {why}", excerpt(text));
    if !text.starts_with('/') {
        return Err(wrong("it must start with '/'; '/**' is everything"));
    }
    if text.contains(['[', ']', '\\']) {
        // A class such as [!a] or [+-9] would cross '/'.
        return Err(wrong("allowed are '*', '?', '{a,b}', and '**' as a whole segment"));
    }
    if text.split('/').any(|segment| segment.contains("**") && segment != "**") {
        return Err(wrong("'**' must be a whole segment, as in '/v1/**'"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) || text.contains("//") {
        return Err(wrong("no path that is judged holds '//', '.' or '..'"));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(false).build();
    glob.map_err(|error| wrong(&error.kind().to_string()))
}

/// Whether a path of the kernel's is absolute and says where it leads.
pub(crate) fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..")
}
