//! Compiles the agent entries of a policy file. Each name, pattern and quantity is parsed once, here. A
//! setting that cannot be enforced is an error or, if it can only refuse, a warning. Nothing is ignored
//! silently.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use globset::GlobMatcher;
use serde_yaml::Spanned;

use super::diagnostics::Diagnostics;
use super::schema::{self, Text};
use super::units;
use super::upstream_options::parse_port;
use crate::identity::container::is_id;
use crate::identity::image::ImagePattern;
use crate::policy::caller_matcher::CallerMatcher;
use crate::policy::exe_pattern;
use crate::policy::glob::parse_glob;
use crate::policy::host_patterns::HostIndex;
use crate::policy::load_error::Problem;
use crate::policy::minted_credentials::MintedCredential;
use crate::policy::rate_limit::{LimitScope, RateLimiter};
use crate::policy::referenced_files::ReferencedFiles;
use crate::policy::rules::{Agent, Policy, Rule};
use crate::policy::spiffe::SpiffeMatcher;
use crate::types::name::{AgentName, SecretName};
use crate::types::printable::excerpt;

/// Compiles `file`, which was read from `path`, or returns all its mistakes.
pub(super) fn compile_policy(file: &schema::File, path: &Path) -> Result<Policy, Vec<Problem>> {
    let file_name = file_name(path);
    let mut diagnostics = Diagnostics {
        errors: Vec::new(),
        warnings: Vec::new(),
        folder: path.parent().unwrap_or(Path::new("")).to_path_buf(),
        referenced_files: ReferencedFiles::default(),
    };
    if file.version.value != 1 {
        diagnostics.error(&file.version, "this program reads version 1 only");
    }
    let credentials = diagnostics.credentials(&file.credentials, &file_name);
    let mut names = HashSet::new();
    let mut agents = Vec::with_capacity(file.agents.len());
    for entry in &file.agents {
        let Some(agent) = diagnostics.agent(&entry.value, &file_name, &credentials) else { continue };
        if !names.insert(agent.name.clone()) {
            diagnostics.error(&entry.value.name, format!("there is another agent '{}' above", agent.name));
        }
        agents.push(agent);
    }
    let Diagnostics { mut errors, warnings, referenced_files, .. } = diagnostics;
    if !errors.is_empty() {
        errors.sort_by_key(|problem| problem.line);
        return Err(errors);
    }
    Ok(Policy { agents, credentials, warnings, file_name, referenced_files })
}

/// The empty policy, which stands for a missing file at `path`.
pub(super) fn empty_policy(path: &Path) -> Policy {
    let message = format!("there is no {}, so everything is denied", path.display());
    let warnings = vec![Problem { line: 0, message }];
    Policy { file_name: file_name(path), warnings, ..Policy::default() }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

impl Diagnostics {
    fn agent(
        &mut self,
        entry: &schema::Agent,
        file: &str,
        credentials: &[Arc<MintedCredential>],
    ) -> Option<Agent> {
        let name: AgentName = self.parse(&entry.name)?;
        let matcher = entry.matches.as_ref().map(|facts| self.caller_matcher(facts));
        let inbound_ports = self.parse_list(&entry.inbound, |port| parse_port(*port));
        let mut hosts = HostIndex::default();
        let mut rules = Vec::with_capacity(entry.allow.len());
        let mut patterns = Vec::with_capacity(entry.allow.len());
        for (index, spanned) in entry.allow.iter().enumerate() {
            let id = format!("{name}/{} ({file}:{})", index + 1, spanned.referenced.line());
            if let Some((host, rule)) = self.rule(spanned, id.into()) {
                hosts.add(host.clone(), rules.len());
                patterns.push((spanned, host));
                rules.push(rule);
            }
        }
        self.check_passthrough_conflicts(&patterns, &rules);
        let injected = |rule: &Rule| rule.injects.iter().map(|spend| spend.name.clone()).collect::<Vec<_>>();
        let mut secrets: Vec<SecretName> =
            rules.iter().flat_map(|rule| rule.secrets.iter().cloned().chain(injected(rule))).collect();
        secrets.sort();
        secrets.dedup();
        let pod = entry.matches.as_ref().and_then(|facts| facts.value.pod.as_ref());
        pod.iter().for_each(|pod| self.require_namespace(pod, &secrets));
        let minted_credentials =
            credentials.iter().filter(|credential| secrets.contains(&credential.name)).cloned().collect();
        let captures = rules
            .iter()
            .filter_map(|rule| rule.response_capture.as_ref())
            .flat_map(|capture| &capture.captures);
        let captured: Vec<SecretName> = captures.map(|(_, name)| name.clone()).collect();
        let limiter =
            entry.rate.as_ref().and_then(|text| self.limiter(text, LimitScope::Agent(name.clone())));
        let secret_limits = self.secret_limits(entry, &secrets);
        let max_body =
            entry.max_body.as_ref().and_then(|text| self.check(text, units::parse_size(&text.value)));
        Some(Agent {
            name,
            matcher,
            allows_env: entry.env,
            inbound_ports,
            rules,
            hosts,
            limiter,
            secret_limits,
            max_body,
            secrets,
            captured,
            minted_credentials,
            is_operator: false,
        })
    }

    fn caller_matcher(&mut self, spanned: &Spanned<schema::Match>) -> CallerMatcher {
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
        CallerMatcher {
            exe: facts.exe.as_ref().and_then(|text| self.check(text, exe_pattern::parse(&text.value))),
            sha256: facts.sha256.as_ref().and_then(|text| self.check(text, parse_sha256(&text.value))),
            uid: facts.uid,
            cgroup: facts.cgroup.as_ref().and_then(|text| self.pattern(text)),
            container: facts
                .container
                .as_ref()
                .and_then(|text| self.check(text, parse_container(&text.value))),
            image: facts.image.as_ref().and_then(|text| self.check(text, parse_image(&text.value))),
            session,
            token,
            trusted,
            pod: facts.pod.as_ref().map(|pod| self.pod(pod)),
            spiffe: facts
                .spiffe
                .as_ref()
                .and_then(|text| self.check(text, SpiffeMatcher::parse(&text.value))),
        }
    }

    fn pattern(&mut self, text: &Text) -> Option<GlobMatcher> {
        self.check(text, parse_glob(&text.value)).map(|glob| glob.compile_matcher())
    }

    /// The limiters of the `limits` entry. The agent may spend `secrets`.
    fn secret_limits(
        &mut self,
        entry: &schema::Agent,
        secrets: &[SecretName],
    ) -> Vec<(SecretName, Arc<RateLimiter>)> {
        let mut limits = Vec::new();
        for (name, text) in entry.limits.iter().flat_map(|limits| &limits.value) {
            let Some(name) = self.check(text, name.parse::<SecretName>()) else { continue };
            if !secrets.contains(&name) {
                self.error(
                    text,
                    format!("no rule of this agent spends '{name}', so that there is nothing to limit"),
                );
            }
            limits
                .extend(self.limiter(text, LimitScope::Secret(name.clone())).map(|limiter| (name, limiter)));
        }
        limits
    }
}

/// Parses a container id, or the beginning of one as engines show it.
fn parse_container(text: &str) -> Result<String, String> {
    if is_id(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{}' is no container id: give 12 to 64 lower-case hex digits; names are an engine's to change",
        excerpt(text)
    ))
}

fn parse_image(text: &str) -> Result<ImagePattern, String> {
    text.parse().map_err(|reason| format!("image '{}' {reason}", excerpt(text)))
}

fn parse_sha256(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("'sha256' is the 64 hexadecimal digits that `sha256sum FILE` prints".to_owned())
}
