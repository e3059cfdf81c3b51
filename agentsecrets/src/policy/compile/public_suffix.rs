//! Domains with names of strangers: everything below a public suffix, and shared hosts of clouds. A rule that
//! spends a secret on all of them would spend it on anybody who registers one: it is an error. A single such
//! name is a warning.

use psl::{List, Psl, Type};

use crate::types::host::Host;

use crate::policy::host_patterns::{HostPattern, is_below};

/// Domains whose customer names are deeper than the public suffix list shows at this level. A wildcard on one
/// of these covers machines that strangers rent.
const SHARED: &[&str] = &[
    "aliyuncs.com",
    "amazonaws.com",
    "amazonaws.com.cn",
    "appspot.com",
    "azure.com",
    "azure.net",
    "cloudflare.net",
    "cloudfunctions.net",
    "digitaloceanspaces.com",
    "googleapis.com",
    "googleusercontent.com",
    "linodeobjects.com",
    "myqcloud.com",
    "oraclecloud.com",
    "windows.net",
];

/// Hosts on which the path or a parameter, not the name, selects the customer.
const BY_PATH: &[&str] = &["storage.googleapis.com", "storage.cloud.google.com"];

/// The reason why a host pattern should not get secrets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SharedDomain {
    /// The pattern covers names that anybody may register.
    Wildcard(String),
    /// The pattern is one such name, which may be registered by somebody else later.
    Name(String),
}

/// Whether `pattern` covers names of strangers.
pub(super) fn shared_domain(pattern: &HostPattern) -> Option<SharedDomain> {
    match pattern {
        HostPattern::Wildcard(parent) => wildcard_risk(parent).map(SharedDomain::Wildcard),
        HostPattern::Exact(Host::Name(name)) => name_risk(name).map(SharedDomain::Name),
        HostPattern::Exact(Host::Ip(_)) => None,
    }
}

fn wildcard_risk(parent: &str) -> Option<String> {
    // The list has wildcard rules such as `*.compute.amazonaws.com`, which match only a name below the
    // parent.
    let below = format!("agentsecrets.{parent}");
    let is_suffix = |name: &str| suffix(name).is_some_and(|(suffix, _)| suffix == name);
    let shared = SHARED.contains(&parent)
        || (name_risk(parent).is_some() && SHARED.iter().any(|name| is_below(parent, name)));
    (is_suffix(parent) || is_suffix(&below) || shared)
        .then(|| format!("anybody may register or rent a name below '{parent}'"))
}

fn name_risk(name: &str) -> Option<String> {
    if BY_PATH.contains(&name) {
        return Some(format!("'{name}' serves many customers: name yours in 'paths'"));
    }
    match suffix(name)? {
        (suffix, _) if suffix == name => {
            Some(format!("'{name}' serves many customers: name yours in 'paths'"))
        }
        (suffix, Type::Private) => {
            Some(format!("anybody may register a name below '{suffix}': be sure that this one stays yours"))
        }
        (_, Type::Icann) => None,
    }
}

/// The public suffix of `name`, if the list has it.
fn suffix(name: &str) -> Option<(&str, Type)> {
    let found = List.suffix(name.as_bytes())?;
    let text = std::str::from_utf8(found.as_bytes()).ok()?;
    Some((text, found.typ()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str) -> Option<SharedDomain> {
        shared_domain(&HostPattern::parse(pattern).unwrap())
    }

    #[test]
    fn wildcard_over_strangers_names_is_found() {
        for pattern in [
            "*.co.uk",
            "*.github.io",
            "*.herokuapp.com",
            "*.workers.dev",
            "*.amazonaws.com",
            "*.s3.amazonaws.com",
            "*.eu-west-1.compute.amazonaws.com",
            "*.compute.amazonaws.com",
            "*.blob.core.windows.net",
            "*.vercel.app",
            "*.azurewebsites.net",
        ] {
            assert!(
                matches!(check(pattern), Some(SharedDomain::Wildcard(_))),
                "{pattern}: {:?}",
                check(pattern)
            );
        }
    }

    #[test]
    fn wildcard_over_own_names_is_allowed() {
        for pattern in
            ["*.example.com", "*.example.co.uk", "*.openai.com", "*.build.internal", "*.mine.github.io"]
        {
            assert_eq!(check(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn single_name_among_strangers_is_found() {
        for name in ["mine.herokuapp.com", "mine.workers.dev", "s3.amazonaws.com", "storage.googleapis.com"] {
            assert!(matches!(check(name), Some(SharedDomain::Name(_))), "{name}: {:?}", check(name));
        }
        for name in ["api.stripe.com", "localhost", "127.0.0.1", "api.test", "bbc.co.uk"] {
            assert_eq!(check(name), None, "{name}");
        }
    }
}
