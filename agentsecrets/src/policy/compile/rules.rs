//! Compiles the rules of an agent entry (`allow:`).

use std::sync::Arc;
use std::time::Duration;

use globset::{GlobSet, GlobSetBuilder};
use http::Method;
use serde_yaml::Spanned;

use super::diagnostics::Diagnostics;
use super::public_suffix::{self, SharedDomain};
use super::response_capture;
use super::schema::{self, Text};
use super::units;
use super::upstream_options::parse_port;
use crate::policy::glob::parse_glob;
use crate::policy::host_patterns::HostPattern;
use crate::policy::injection::{InjectionStyle, SecretUse};
use crate::policy::location::{LocationKind, LocationPattern};
use crate::policy::path::ENCODED_SLASH;
use crate::policy::private_addresses::PrivateAddresses;
use crate::policy::rate_limit::{LimitScope, RateLimiter};
use crate::policy::rules::Rule;
use crate::policy::signing::Signing;
use crate::types::host::Host;
use crate::types::name::SecretName;
use crate::types::printable::excerpt;

/// The time that a request waits for approval with `approve: true`, and the longest time allowed.
const DEFAULT_APPROVAL_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_APPROVAL_TIMEOUT: Duration = Duration::from_secs(3_600);

impl Diagnostics {
    /// Compiles one rule, with its host pattern.
    pub(super) fn rule(
        &mut self,
        spanned: &Spanned<schema::Rule>,
        id: Arc<str>,
    ) -> Option<(HostPattern, Rule)> {
        let rule = &spanned.value;
        let mut injects = rule.inject.as_ref().map(|inject| self.inject(inject)).unwrap_or_default();
        let mut secrets = self.parse_list(&rule.secrets, |name| name.parse::<SecretName>());
        for SecretUse { name, .. } in &injects {
            if !secrets.contains(name) {
                secrets.push(name.clone());
            }
        }
        if let Some(name) = rule.client_cert.as_ref().and_then(|text| self.parse(text)) {
            injects.push(SecretUse { name, style: InjectionStyle::ClientCertificate });
        }
        let signing = rule.sign.as_ref().and_then(|sign| self.signing(sign));
        injects.extend(signing.iter().flat_map(Signing::secret_uses));
        let roots = rule.roots.as_ref().and_then(|text| self.roots(text));
        let mut locations = match &rule.places {
            Some(places) => self.parse_list(places, |text| text.parse::<LocationPattern>()),
            None => vec![LocationPattern::Kind(LocationKind::Auth)],
        };
        let capture = self.response_capture(rule);
        for (field, name) in capture.iter().flat_map(|capture| &capture.captures) {
            locations.extend(response_capture::send_location(field));
            if !secrets.contains(name) {
                secrets.push(name.clone());
            }
        }
        let has_captures = capture.as_ref().is_some_and(|capture| !capture.captures.is_empty());
        let limiter = rule.rate.as_ref().and_then(|text| self.limiter(text, LimitScope::Rule));
        let compiled = Rule {
            id,
            ports: self.parse_limit("ports", rule.ports.as_ref(), |port| parse_port(*port)),
            methods: self.parse_limit("methods", rule.methods.as_ref(), |text| parse_method(text)),
            paths: self.paths(rule.paths.as_ref()),
            path_patterns: rule
                .paths
                .iter()
                .flat_map(|list| &list.value)
                .map(|text| text.value.clone())
                .collect(),
            allows_encoded_slashes: rule
                .encoded_slashes
                .as_ref()
                .is_some_and(|value| value.value == schema::EncodedSlashes::Allow),
            secrets,
            injects,
            signing: signing.map(Arc::new),
            response_capture: capture.map(Arc::new),
            allows_minting: has_captures || rule.mint == Some(schema::Mint::Allow),
            locations,
            approval_timeout: rule.approve.as_ref().and_then(|approve| self.approve(approve)),
            is_passthrough: rule.tls.is_some(),
            limiter,
            max_body: rule
                .max_body
                .as_ref()
                .and_then(|text| self.check(text, units::parse_size(&text.value))),
            private: rule.private.as_ref().map(|private| self.private(private)).unwrap_or_default(),
            roots,
        };
        self.check_passthrough(rule, &compiled);
        let host = self.check(&rule.host, HostPattern::parse(&rule.host.value))?;
        self.add_warnings(rule, &compiled, &host);
        self.check_public_suffix(rule, &compiled, &host);
        Some((host, compiled))
    }

    fn paths(&mut self, list: Option<&Spanned<Vec<Text>>>) -> Option<Arc<GlobSet>> {
        let mut set = GlobSetBuilder::new();
        for glob in self.parse_limit("paths", list, |text| parse_glob(&text.replace("%2F", ENCODED_SLASH)))? {
            set.add(glob);
        }
        list.and_then(|list| self.check(list, set.build())).map(Arc::new)
    }

    fn approve(&mut self, spanned: &Spanned<schema::Approve>) -> Option<Duration> {
        let timeout = match &spanned.value {
            schema::Approve::Plain(is_required) => is_required.then_some(DEFAULT_APPROVAL_TIMEOUT)?,
            schema::Approve::Waiting(schema::Wait { wait }) => {
                self.check(spanned, units::parse_duration(wait))?
            }
        };
        if timeout > MAX_APPROVAL_TIMEOUT {
            self.error(
                spanned,
                "an agent waits for a person at most 1h: what comes later is kept for its next try",
            );
        }
        Some(timeout)
    }

    /// A limiter with the rate in `text`.
    pub(super) fn limiter(&mut self, text: &Text, scope: LimitScope) -> Option<Arc<RateLimiter>> {
        self.check(text, units::parse_rate(&text.value)).map(|rate| Arc::new(RateLimiter::new(rate, scope)))
    }

    /// Reports keys that a passthrough rule cannot have, since its connections are not opened.
    fn check_passthrough(&mut self, rule: &schema::Rule, compiled: &Rule) {
        let Some(tls) = &rule.tls else { return };
        let schema::Tls::Passthrough = tls.value;
        let needs_opening = rule.methods.is_some()
            || rule.paths.is_some()
            || rule.encoded_slashes.is_some()
            || rule.max_body.is_some();
        let has_tls_keys = rule.roots.is_some() || rule.client_cert.is_some();
        if needs_opening
            || has_tls_keys
            || !compiled.secrets.is_empty()
            || rule.sign.is_some()
            || compiled.response_capture.is_some()
            || compiled.approval_timeout.is_some()
        {
            self.error(
                tls,
                "a passthrough connection is not opened: it can have no methods, paths, encoded_slashes, secrets, \
                 inject, sign, capture, strip, approve, max_body, roots or client_cert",
            );
        }
    }

    /// Reports passthrough rules for hosts on which another rule spends secrets.
    pub(super) fn check_passthrough_conflicts(
        &mut self,
        patterns: &[(&Spanned<schema::Rule>, HostPattern)],
        rules: &[Rule],
    ) {
        let pairs = || patterns.iter().zip(rules);
        for ((spanned, host), passthrough) in pairs().filter(|(_, rule)| rule.is_passthrough) {
            let spends = |rule: &Rule| !rule.secrets.is_empty() || !rule.injects.is_empty();
            let conflicts = |(other, rule): &(&(_, HostPattern), &Rule)| {
                !rule.is_passthrough
                    && spends(rule)
                    && other.1.overlaps(host)
                    && passthrough.shares_port(rule)
            };
            if let (Some((_, other)), Some(tls)) = (pairs().find(conflicts), &spanned.value.tls) {
                let rule = &other.id;
                self.error(tls, format!("this host is not opened, but rule {rule} spends secrets there"));
            }
        }
    }

    /// Reports secrets for domains where strangers may register names.
    fn check_public_suffix(&mut self, rule: &schema::Rule, compiled: &Rule, host: &HostPattern) {
        match (public_suffix::shared_domain(host), compiled.secrets.is_empty()) {
            (Some(SharedDomain::Wildcard(reason)), false) => {
                self.error(
                    &rule.host,
                    format!("{reason}, and would get these secrets: name the hosts you mean"),
                );
            }
            (Some(SharedDomain::Wildcard(reason)), true) => {
                self.warn(&rule.host, format!("{reason}, and an agent may send there what it likes"));
            }
            (Some(SharedDomain::Name(reason)), false) => self.warn(&rule.host, reason),
            (Some(SharedDomain::Name(_)) | None, _) => {}
        }
    }

    /// Warns about entries that are valid but probably not intended.
    fn add_warnings(&mut self, rule: &schema::Rule, compiled: &Rule, host: &HostPattern) {
        for pattern in rule.paths.iter().flat_map(|paths| &paths.value) {
            // The only encoding that is left in a normalized path.
            let left = pattern.value.to_ascii_lowercase().replace(ENCODED_SLASH, "");
            if left.contains('%') {
                self.warn(pattern, "this matches nothing: paths are decoded first, so write it without '%'");
            } else if left.len() < pattern.value.len() && !compiled.allows_encoded_slashes {
                self.warn(pattern, "this matches nothing without 'encoded_slashes: allow'");
            }
            for SecretUse { style, .. } in &compiled.injects {
                if let InjectionStyle::Path(literal) = style
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

fn parse_method(text: &str) -> Result<Method, String> {
    let error = || format!("'{}' is not a method; write it as GET, POST and so on", excerpt(text));
    if text == "CONNECT" {
        return Err("'CONNECT' opens tunnels and is never a request of its own; leave it out".to_owned());
    }
    let upper = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if upper { text.parse().map_err(|_| error()) } else { Err(error()) }
}
