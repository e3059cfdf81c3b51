//! What the file says, judged: every name, pattern and quantity is read once, here, and what cannot be
//! enforced is an error or, where it only ever refuses, a warning. Nothing is passed over in silence.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use globset::{GlobMatcher, GlobSet, GlobSetBuilder};
use http::Method;
use ipnet::IpNet;
use serde_yaml::Spanned;

use crate::identity::container::is_id;
use crate::identity::image::Wanted;
use crate::tls::verify::Roots;
use crate::types::host::Host;
use crate::types::name::{AgentName, SecretName};
use crate::types::printable::excerpt;

use super::grant::{PrivateAddresses, Spend, Style};
use super::load::Problem;
use super::matching::{HostPattern, Hosts, Match, glob};
use super::path::ENCODED_SLASH;
use super::rules::{Agent, Policy, Rule};
use super::signing::Signing;
use super::spiffe::Identity;
use crate::policy::access_request::{Area, Place};
use crate::policy::minted_credentials::Derived;
use crate::policy::public_suffix::{self, Strangers};
use crate::policy::rate_limit::{Limiter, Of};
use crate::policy::referenced_files::Sources;
use crate::policy::response_capture;
use crate::policy::schema::{self, Text};
use crate::policy::units;

/// How long a request waits for a person where `approve: true` does not say, and how long it may at most.
const WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// The policy that `file` says, or all its mistakes.
/// `sources` reads what the file names.
pub(super) fn policy(file: &schema::File, name: String, sources: Sources) -> Result<Policy, Vec<Problem>> {
    let mut found = Findings { errors: Vec::new(), warnings: Vec::new(), sources };
    if file.version.value != 1 {
        found.error(&file.version, "this program reads version 1 only");
    }
    let credentials = found.credentials(&file.credentials, &name);
    let mut names = HashSet::new();
    let mut agents = Vec::with_capacity(file.agents.len());
    for entry in &file.agents {
        let Some(agent) = found.agent(&entry.value, &name, &credentials) else { continue };
        if !names.insert(agent.name.clone()) {
            found.error(&entry.value.name, format!("there is another agent '{}' above", agent.name));
        }
        agents.push(agent);
    }
    if !found.errors.is_empty() {
        found.errors.sort_by_key(|problem| problem.line);
        return Err(found.errors);
    }
    Ok(Policy { agents, credentials, warnings: found.warnings, file: name, sources: found.sources })
}

/// Collects what there is to say.
pub(super) struct Findings {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    sources: Sources,
}

impl Findings {
    pub(super) fn error<T>(&mut self, at: &Spanned<T>, message: impl Display) {
        self.errors.push(Problem { line: at.referenced.line(), message: message.to_string() });
    }

    pub(super) fn warn<T>(&mut self, at: &Spanned<T>, message: impl Display) {
        self.warnings.push(Problem { line: at.referenced.line(), message: message.to_string() });
    }

    /// The value, or its error is noted.
    pub(super) fn keep<A, T, E: Display>(&mut self, at: &Spanned<A>, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.error(at, error)).ok()
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, text: &Text) -> Option<T> {
        self.keep(text, text.value.parse::<T>())
    }

    /// Reads each of `list` and refuses what stands there twice.
    pub(super) fn each<A, T: Clone + Eq + Hash, E: Display>(
        &mut self,
        list: &[Spanned<A>],
        read: impl Fn(&A) -> Result<T, E>,
    ) -> Vec<T> {
        let mut seen = HashSet::new();
        let mut values = Vec::with_capacity(list.len());
        for item in list {
            let Some(value) = self.keep(item, read(&item.value)) else { continue };
            if !seen.insert(value.clone()) {
                self.error(item, "this stands twice in the list");
            }
            values.push(value);
        }
        values
    }

    /// Like `each`, for a list that limits: empty, it would allow nothing, which nobody means.
    pub(super) fn limiting<A, T: Clone + Eq + Hash, E: Display>(
        &mut self,
        key: &str,
        list: Option<&Spanned<Vec<Spanned<A>>>>,
        read: impl Fn(&A) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let list = list?;
        if list.value.is_empty() {
            self.error(list, format!("'{key}' is empty: name what is allowed, or leave it out to allow all"));
        }
        Some(self.each(&list.value, read))
    }

    fn agent(&mut self, entry: &schema::Agent, file: &str, credentials: &[Arc<Derived>]) -> Option<Agent> {
        let name: AgentName = self.parse(&entry.name)?;
        let matches = entry.matches.as_ref().map(|facts| self.facts(facts));
        let inbound = self.each(&entry.inbound, |port| port_number(*port));
        let mut hosts = Hosts::default();
        let mut rules = Vec::with_capacity(entry.allow.len());
        let mut placed = Vec::with_capacity(entry.allow.len());
        for (index, spanned) in entry.allow.iter().enumerate() {
            let id = format!("{name}/{} ({file}:{})", index + 1, spanned.referenced.line());
            if let Some((host, rule)) = self.rule(spanned, id.into()) {
                hosts.add(host.clone(), rules.len());
                placed.push((spanned, host));
                rules.push(rule);
            }
        }
        self.opened_and_not(&placed, &rules);
        let injected = |rule: &Rule| rule.injects.iter().map(|spend| spend.name.clone()).collect::<Vec<_>>();
        let mut secrets: Vec<SecretName> =
            rules.iter().flat_map(|rule| rule.secrets.iter().cloned().chain(injected(rule))).collect();
        secrets.sort();
        secrets.dedup();
        let pod = entry.matches.as_ref().and_then(|facts| facts.value.pod.as_ref());
        pod.iter().for_each(|pod| self.not_without_namespace(pod, &secrets));
        let derived = credentials.iter().filter(|derived| secrets.contains(&derived.name)).cloned().collect();
        let taken = rules.iter().filter_map(|rule| rule.taking.as_ref()).flat_map(|taking| &taking.captures);
        let captured: Vec<SecretName> = taken.map(|(_, name)| name.clone()).collect();
        let limiter = entry.rate.as_ref().and_then(|text| self.limiter(text, Of::Agent(name.clone())));
        let limits = self.limits(entry, &secrets);
        let max_body = entry.max_body.as_ref().and_then(|text| self.keep(text, units::size(&text.value)));
        let (env, is_person) = (entry.env, false);
        Some(Agent {
            name,
            matches,
            env,
            inbound,
            rules,
            hosts,
            limiter,
            limits,
            max_body,
            secrets,
            captured,
            derived,
            is_person,
        })
    }

    fn facts(&mut self, spanned: &Spanned<schema::Match>) -> Match {
        let facts = &spanned.value;
        let session = facts.session == Some(true);
        let token = facts.token == Some(true);
        let trusted = facts.trusted == Some(true);
        let named = facts.exe.is_some()
            || facts.sha256.is_some()
            || facts.uid.is_some()
            || facts.cgroup.is_some()
            || facts.container.is_some()
            || facts.image.is_some()
            || facts.pod.is_some()
            || facts.spiffe.is_some();
        if !named && !session && !token && !trusted {
            self.error(
                spanned,
                "'match' asks for no fact and would hold for any program: name one of exe, sha256, uid, cgroup, \
                 container, image, pod, spiffe, session: true, token: true, trusted: true, or leave 'match' out",
            );
        }
        if let (Some(_), Some(identity)) = (&facts.pod, &facts.spiffe) {
            self.warn(identity, "this never holds: a service of a node knows 'pod', a sidecar knows 'spiffe', and neither both");
        }
        Match {
            exe: facts
                .exe
                .as_ref()
                .and_then(|text| self.keep(text, crate::policy::exe_pattern::glob(&text.value))),
            sha256: facts.sha256.as_ref().and_then(|text| self.keep(text, sha256(&text.value))),
            uid: facts.uid,
            cgroup: facts.cgroup.as_ref().and_then(|text| self.pattern(text)),
            container: facts.container.as_ref().and_then(|text| self.keep(text, container(&text.value))),
            image: facts.image.as_ref().and_then(|text| self.keep(text, image(&text.value))),
            session,
            token,
            trusted,
            pod: facts.pod.as_ref().map(|pod| self.pod(pod)),
            spiffe: facts.spiffe.as_ref().and_then(|text| self.keep(text, Identity::read(&text.value))),
        }
    }

    fn pattern(&mut self, text: &Text) -> Option<GlobMatcher> {
        self.keep(text, glob(&text.value)).map(|glob| glob.compile_matcher())
    }

    fn rule(&mut self, spanned: &Spanned<schema::Rule>, id: Arc<str>) -> Option<(HostPattern, Rule)> {
        let rule = &spanned.value;
        let mut injects = rule.inject.as_ref().map(|inject| self.injects(inject)).unwrap_or_default();
        let mut secrets = self.each(&rule.secrets, |name| name.parse::<SecretName>());
        for Spend { name, .. } in &injects {
            if !secrets.contains(name) {
                secrets.push(name.clone());
            }
        }
        if let Some(name) = rule.client_cert.as_ref().and_then(|text| self.parse(text)) {
            injects.push(Spend { name, style: Style::ClientCertificate });
        }
        let signing = rule.sign.as_ref().and_then(|sign| self.signing(sign));
        injects.extend(signing.iter().flat_map(Signing::spends));
        let roots = rule.roots.as_ref().and_then(|text| self.roots(text));
        let mut places = match &rule.places {
            Some(places) => self.each(places, |text| text.parse::<Area>()),
            None => vec![Area::Every(Place::Auth)],
        };
        let taking = self.taking(rule);
        for (source, name) in taking.iter().flat_map(|taking| &taking.captures) {
            places.extend(response_capture::area(source));
            if !secrets.contains(name) {
                secrets.push(name.clone());
            }
        }
        let captures = taking.as_ref().is_some_and(|taking| !taking.captures.is_empty());
        let limiter = rule.rate.as_ref().and_then(|text| self.limiter(text, Of::Rule));
        let compiled = Rule {
            id,
            ports: self.limiting("ports", rule.ports.as_ref(), |port| port_number(*port)),
            methods: self.limiting("methods", rule.methods.as_ref(), |text| method(text)),
            paths: self.paths(rule.paths.as_ref()),
            patterns: rule.paths.iter().flat_map(|list| &list.value).map(|text| text.value.clone()).collect(),
            encoded_slashes: rule
                .encoded_slashes
                .as_ref()
                .is_some_and(|said| said.value == schema::EncodedSlashes::Allow),
            secrets,
            injects,
            signing: signing.map(Arc::new),
            taking: taking.map(Arc::new),
            mint: captures || rule.mint == Some(schema::Mint::Allow),
            places,
            approve: rule.approve.as_ref().and_then(|approve| self.approve(approve)),
            passthrough: rule.tls.is_some(),
            limiter,
            max_body: rule.max_body.as_ref().and_then(|text| self.keep(text, units::size(&text.value))),
            private: rule.private.as_ref().map(|private| self.private(private)).unwrap_or_default(),
            roots,
        };
        self.passthrough(rule, &compiled);
        let host = self.keep(&rule.host, HostPattern::read(&rule.host.value))?;
        self.advise(rule, &compiled, &host);
        self.strangers(rule, &compiled, &host);
        Some((host, compiled))
    }

    fn paths(&mut self, list: Option<&Spanned<Vec<Text>>>) -> Option<Arc<GlobSet>> {
        let mut set = GlobSetBuilder::new();
        for glob in self.limiting("paths", list, |text| glob(&text.replace("%2F", ENCODED_SLASH)))? {
            set.add(glob);
        }
        list.and_then(|list| self.keep(list, set.build())).map(Arc::new)
    }

    fn approve(&mut self, spanned: &Spanned<schema::Approve>) -> Option<Duration> {
        let wait = match &spanned.value {
            schema::Approve::Plain(held) => held.then_some(WAIT)?,
            schema::Approve::Waiting(schema::Wait { wait }) => self.keep(spanned, units::wait(wait))?,
        };
        if wait > LONGEST_WAIT {
            self.error(
                spanned,
                "an agent waits for a person at most 1h: what comes later is kept for its next try",
            );
        }
        Some(wait)
    }

    /// What counts requests by the rate that `text` says.
    fn limiter(&mut self, text: &Text, of: Of) -> Option<Arc<Limiter>> {
        self.keep(text, units::rate(&text.value)).map(|rate| Arc::new(Limiter::new(rate, of)))
    }

    /// What counts the requests that spend each secret; `secrets` are those that the agent may spend.
    fn limits(&mut self, entry: &schema::Agent, secrets: &[SecretName]) -> Vec<(SecretName, Arc<Limiter>)> {
        let mut limits = Vec::new();
        for (name, text) in entry.limits.iter().flat_map(|limits| &limits.value) {
            let Some(name) = self.keep(text, name.parse::<SecretName>()) else { continue };
            if !secrets.contains(&name) {
                self.error(
                    text,
                    format!("no rule of this agent spends '{name}', so that there is nothing to limit"),
                );
            }
            limits.extend(self.limiter(text, Of::Secret(name.clone())).map(|limiter| (name, limiter)));
        }
        limits
    }

    pub(super) fn roots(&mut self, text: &Text) -> Option<Arc<Roots>> {
        let read = self.sources.roots(&text.value);
        self.keep(text, read)
    }

    pub(super) fn private(&mut self, spanned: &Spanned<schema::Private>) -> PrivateAddresses {
        let networks = match &spanned.value {
            schema::Private::Plain(true) => return PrivateAddresses::Any,
            schema::Private::Plain(false) => return PrivateAddresses::None,
            schema::Private::Within(networks) => networks,
        };
        if networks.is_empty() {
            self.error(
                spanned,
                "'private' lists no network: name some, such as 10.2.0.0/16, or leave it out",
            );
        }
        let networks = networks.iter().filter_map(|text| self.keep(spanned, network(text)));
        PrivateAddresses::Within(networks.collect::<Vec<_>>().into())
    }

    /// What a connection that is not opened cannot have.
    fn passthrough(&mut self, rule: &schema::Rule, compiled: &Rule) {
        let Some(tls) = &rule.tls else { return };
        let schema::Tls::Passthrough = tls.value;
        let opened = rule.methods.is_some()
            || rule.paths.is_some()
            || rule.encoded_slashes.is_some()
            || rule.max_body.is_some();
        let trusting = rule.roots.is_some() || rule.client_cert.is_some();
        if opened
            || trusting
            || !compiled.secrets.is_empty()
            || rule.sign.is_some()
            || compiled.taking.is_some()
            || compiled.approve.is_some()
        {
            self.error(
                tls,
                "a passthrough connection is not opened: it can have no methods, paths, encoded_slashes, secrets, \
                 inject, sign, capture, strip, approve, max_body, roots or client_cert",
            );
        }
    }

    /// A host whose connections are not opened gets no secret from another rule either.
    fn opened_and_not(&mut self, placed: &[(&Spanned<schema::Rule>, HostPattern)], rules: &[Rule]) {
        let pairs = || placed.iter().zip(rules);
        for ((spanned, host), closed) in pairs().filter(|(_, rule)| rule.passthrough) {
            let spends = |rule: &Rule| !rule.secrets.is_empty() || !rule.injects.is_empty();
            let same = |(other, rule): &(&(_, HostPattern), &Rule)| {
                !rule.passthrough && spends(rule) && other.1.meets(host) && closed.shares_port(rule)
            };
            if let (Some((_, other)), Some(tls)) = (pairs().find(same), &spanned.value.tls) {
                let rule = &other.id;
                self.error(tls, format!("this host is not opened, but rule {rule} spends secrets there"));
            }
        }
    }

    /// Secrets are not spent on names that strangers may register.
    fn strangers(&mut self, rule: &schema::Rule, compiled: &Rule, host: &HostPattern) {
        match (public_suffix::strangers(host), compiled.secrets.is_empty()) {
            (Some(Strangers::Covered(why)), false) => {
                self.error(
                    &rule.host,
                    format!("{why}, and would get these secrets: name the hosts you mean"),
                );
            }
            (Some(Strangers::Covered(why)), true) => {
                self.warn(&rule.host, format!("{why}, and an agent may send there what it likes"));
            }
            (Some(Strangers::Near(why)), false) => self.warn(&rule.host, why),
            (Some(Strangers::Near(_)) | None, _) => {}
        }
    }

    /// What is legal, but should be known.
    fn advise(&mut self, rule: &schema::Rule, compiled: &Rule, host: &HostPattern) {
        for pattern in rule.paths.iter().flat_map(|paths| &paths.value) {
            // The only encoding that is left in a path when it is matched.
            let left = pattern.value.to_ascii_lowercase().replace(ENCODED_SLASH, "");
            if left.contains('%') {
                self.warn(pattern, "this matches nothing: paths are decoded first, so write it without '%'");
            } else if left.len() < pattern.value.len() && !compiled.encoded_slashes {
                self.warn(pattern, "this matches nothing without 'encoded_slashes: allow'");
            }
            for Spend { style, .. } in &compiled.injects {
                if let Style::Path(literal) = style
                    && pattern.value.contains(&**literal)
                {
                    self.warn(
                        pattern,
                        format!("this matches nothing: write '*' in the place of '{literal}'"),
                    );
                }
            }
        }
        if compiled.ports.is_none() && !compiled.secrets.is_empty() {
            self.warn(&rule.host, "this rule spends secrets on any port: add 'ports: [443]'");
        }
        if let HostPattern::Exact(Host::Ip(ip)) = host
            && (ip.is_loopback() || matches!(ip, std::net::IpAddr::V4(ip) if ip.is_private()))
            && compiled.private == PrivateAddresses::None
        {
            self.warn(&rule.host, "this address is not public: it is refused without 'private'");
        }
    }
}

fn port_number(port: u16) -> Result<u16, &'static str> {
    if port == 0 { Err("a port is a number from 1 to 65535") } else { Ok(port) }
}

fn method(text: &str) -> Result<Method, String> {
    let wrong = || format!("'{}' is not a method; write it as GET, POST and so on", excerpt(text));
    if text == "CONNECT" {
        return Err("'CONNECT' opens tunnels and is never a request of its own; leave it out".to_owned());
    }
    let upper = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if upper { text.parse().map_err(|_| wrong()) } else { Err(wrong()) }
}

/// A container's id, or its beginning as engines show it.
fn container(text: &str) -> Result<String, String> {
    if is_id(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{}' is no container id: give 12 to 64 lower-case hex digits; names are an engine's to change",
        excerpt(text)
    ))
}

fn image(text: &str) -> Result<Wanted, String> {
    text.parse().map_err(|why| format!("image '{}' {why}", excerpt(text)))
}

fn sha256(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("'sha256' is the 64 hexadecimal digits that `sha256sum FILE` prints".to_owned())
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    let wrong = |_| format!("'{}' is not a network; write it as 10.2.0.0/16, or true for any", excerpt(text));
    text.parse::<IpNet>().or(address).map(|network| network.trunc()).map_err(wrong)
}
