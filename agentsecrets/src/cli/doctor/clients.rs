//! Which programs trust a run's authority, and what to do about those that cannot know of it. What can be
//! looked at on this machine is looked at; the rest is said, so that nobody has to find out by failing.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::launch::view::AUTHORITY;
use crate::launch::view::BUNDLE;
use crate::launch::view::JAVA;
use crate::launch::view::ca_bundle;

/// How clients learn of the authority.
const REACHED: &[(&str, &str)] = &[
    ("OpenSSL, and with it curl, Python, Ruby, PHP and Perl", "SSL_CERT_FILE, or the system's bundle"),
    ("GnuTLS, and with it wget and Debian's git", "the system's bundle"),
    ("git, cargo, Composer, Julia, the clouds' own tools", "a variable of each"),
    ("Python's requests, httpx, aiohttp, pip, boto3 and gRPC", "a variable of each"),
    ("Node, npm, Bun, Deno", "NODE_EXTRA_CA_CERTS, npm_config_cafile, DENO_CERT"),
    ("Go, and Rust with the system's roots", "SSL_CERT_FILE, or the system's bundle"),
];

/// Browsers, which keep roots of their own.
const BROWSERS: &[&str] = &["firefox", "firefox-esr", "chromium", "chromium-browser", "google-chrome"];

/// One line for the list of all findings, and one for each program here that is not reached.
pub(super) fn summary() -> Vec<Finding> {
    let system = ca_bundle::system();
    let mut findings = vec![if system.is_empty() {
        no_bundle()
    } else {
        Finding::good(
            "common clients trust a run's authority; `agentsecrets doctor clients` names the others",
        )
    }];
    findings.extend(browsers());
    findings
}

/// Every kind of client.
pub(super) fn all() -> Vec<Finding> {
    let (home, folder) = (home(), std::env::current_dir().unwrap_or_default());
    let mut findings: Vec<Finding> =
        REACHED.iter().map(|(who, how)| Finding::good(format!("{who}: by {how}"))).collect();
    match ca_bundle::system() {
        bundles if bundles.is_empty() => findings.push(no_bundle()),
        bundles => findings.push(Finding::good(format!("the system's bundle: {}", list(&bundles)))),
    }
    match ca_bundle::javas(&home) {
        stores if stores.is_empty() => findings.push(Finding::good("Java: none is here")),
        stores => findings.push(Finding::good(format!("Java: its trust store, {}", list(&stores)))),
    }
    let carried = ca_bundle::carried(&home, &folder);
    if !carried.is_empty() {
        findings.push(Finding::good(format!("Stripe's Python library: its bundle, {}", list(&carried))));
    }
    findings.extend(browsers());
    findings.extend([
        Finding::warning(
            "a Java that is not listed above",
            format!("start it with JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore={JAVA}"),
        ),
        Finding::warning(
            "a library that insists on a bundle of its own, such as certifi's where it is named by its path, and \
             Stripe's for Ruby, PHP, or Python where it was installed during the run",
            "set its path of roots to the value of SSL_CERT_FILE (Stripe: ca_bundle_path)",
        ),
        Finding::warning(
            "a program with compiled-in roots (rustls with webpki-roots, some static builds) or pinned keys",
            "use a build that reads the system's roots; or give its host 'tls: passthrough' in the policy, where \
             its traffic is not opened and no secret is spent",
        ),
    ]);
    findings
}

fn no_bundle() -> Finding {
    Finding::warning(
        format!(
            "the system has no bundle of roots: clients that read no variable ({BUNDLE}) will not trust us"
        ),
        "apt-get install ca-certificates",
    )
}

fn browsers() -> Option<Finding> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = |name: &&&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let found: Vec<&str> = BROWSERS.iter().filter(here).copied().collect();
    let fix = format!(
        "inside the run: mkdir -p ~/.pki/nssdb && certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n agentsecrets \
         -i {AUTHORITY} (Firefox: -d sql: and the folder of its profile)"
    );
    let names = found.join(" and ");
    (!found.is_empty()).then(|| Finding::warning(format!("{names}: a browser keeps roots of its own"), fix))
}

/// The home of whom `run` would start an agent as.
fn home() -> PathBuf {
    let sudo = crate::launch::who_called_sudo().map(|user| user.dir);
    sudo.or_else(|| std::env::var_os("HOME").map(PathBuf::from))
        .unwrap_or_else(|| Path::new("/").to_path_buf())
}

fn list<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> String {
    paths.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    #[test]
    fn who_cannot_be_reached_is_told_what_to_do() {
        for finding in all() {
            assert_eq!(finding.fix.is_some(), finding.mark != Mark::Good, "{}", finding.what);
        }
    }
}
