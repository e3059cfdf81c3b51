//! Names whose neighbours belong to strangers: everything below a public suffix, and the shared hosts of
//! clouds. A secret that is spent on all of them is spent on whoever registers one, so a rule that does
//! so is refused, and one that comes near is warned about.

use psl::{List, Psl, Type};

use crate::types::host::Host;

use super::matching::HostPattern;

/// Domains below which customers' names lie deeper than the list of public suffixes shows at their own
/// level: a wildcard on one of these covers machines that strangers rent.
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

/// Hosts on which the path or a parameter, and not the name, says whose data it is.
const BY_PATH: &[&str] = &["storage.googleapis.com", "storage.cloud.google.com"];

/// What is wrong with spending secrets where a pattern leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Strangers {
    /// The pattern covers names that anybody may register.
    Covered(String),
    /// The one name is such a name: it is somebody's, and may become somebody else's.
    Near(String),
}

/// Whose names `pattern` covers beside those that are meant.
pub(super) fn strangers(pattern: &HostPattern) -> Option<Strangers> {
    match pattern {
        HostPattern::Below(parent) => covered(parent).map(Strangers::Covered),
        HostPattern::Exact(Host::Name(name)) => near(name).map(Strangers::Near),
        HostPattern::Exact(Host::Ip(_)) => None,
    }
}

fn covered(parent: &str) -> Option<String> {
    // The rules of the list are asked about a name below the parent: `*.compute.amazonaws.com` is one.
    let below = format!("agentsecrets.{parent}");
    let is_suffix = |name: &str| suffix(name).is_some_and(|(suffix, _)| suffix == name);
    let shared = SHARED.contains(&parent)
        || (near(parent).is_some() && SHARED.iter().any(|name| is_below(parent, name)));
    (is_suffix(parent) || is_suffix(&below) || shared)
        .then(|| format!("anybody may register or rent a name below '{parent}'"))
}

fn near(name: &str) -> Option<String> {
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

fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

/// The public suffix of `name`, where the list knows it.
fn suffix(name: &str) -> Option<(&str, Type)> {
    let found = List.suffix(name.as_bytes())?;
    let text = std::str::from_utf8(found.as_bytes()).ok()?;
    Some((text, found.typ()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str) -> Option<Strangers> {
        strangers(&HostPattern::read(pattern).unwrap())
    }

    #[test]
    fn a_wildcard_over_strangers_names_is_seen() {
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
            assert!(matches!(of(pattern), Some(Strangers::Covered(_))), "{pattern}: {:?}", of(pattern));
        }
    }

    #[test]
    fn a_wildcard_over_ones_own_names_is_not() {
        for pattern in
            ["*.example.com", "*.example.co.uk", "*.openai.com", "*.build.internal", "*.mine.github.io"]
        {
            assert_eq!(of(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn one_name_among_strangers_is_worth_a_word() {
        for name in ["mine.herokuapp.com", "mine.workers.dev", "s3.amazonaws.com", "storage.googleapis.com"] {
            assert!(matches!(of(name), Some(Strangers::Near(_))), "{name}: {:?}", of(name));
        }
        for name in ["api.stripe.com", "localhost", "127.0.0.1", "api.test", "bbc.co.uk"] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
