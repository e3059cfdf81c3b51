//! Lists the programs that trust the CA of a run, and a fix for those that do not. It inspects this machine
//! where it can, and names the other cases so that nobody has to find them by failing.

use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::launch::view::AUTHORITY;
use crate::launch::view::BUNDLE;
use crate::launch::view::JAVA;
use crate::launch::view::ca_bundle;

/// Clients that trust the CA, with the setting that makes them do so.
const TRUSTING_CLIENTS: &[(&str, &str)] = &[
    ("OpenSSL, and with it curl, Python, Ruby, PHP and Perl", "SSL_CERT_FILE, or the system's bundle"),
    ("GnuTLS, and with it wget and Debian's git", "the system's bundle"),
    ("git, cargo, Composer, Julia, the clouds' own tools", "a variable of each"),
    ("Python's requests, httpx, aiohttp, pip, boto3 and gRPC", "a variable of each"),
    ("Node, npm, Bun, Deno", "NODE_EXTRA_CA_CERTS, npm_config_cafile, DENO_CERT"),
    ("Go, and Rust with the system's roots", "SSL_CERT_FILE, or the system's bundle"),
];

/// Browsers, which have a root store of their own.
const BROWSERS: &[&str] = &["firefox", "firefox-esr", "chromium", "chromium-browser", "google-chrome"];

/// One line for the full list of findings, and one for each program here that does not trust the CA.
pub(super) fn summary() -> Vec<Finding> {
    let system = ca_bundle::system();
    let mut findings = vec![if system.is_empty() {
        no_bundle()
    } else {
        Finding::good("common clients trust the CA of a run; `agentsecrets doctor clients` lists the others")
    }];
    findings.extend(browsers());
    findings
}

/// Findings for every kind of client.
pub(super) fn all() -> Vec<Finding> {
    let (home, folder) = (home(), std::env::current_dir().unwrap_or_default());
    let mut findings: Vec<Finding> =
        TRUSTING_CLIENTS.iter().map(|(who, how)| Finding::good(format!("{who}: by {how}"))).collect();
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
        format!("the system has no CA bundle: clients that read no variable ({BUNDLE}) will not trust us"),
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
    (!found.is_empty())
        .then(|| Finding::warning(format!("{names}: browsers have a root store of their own"), fix))
}

/// The home of the user as whom `run` would start an agent.
fn home() -> PathBuf {
    let sudo = crate::launch::sudo_caller().map(|user| user.dir);
    sudo.or_else(|| std::env::var_os("HOME").map(PathBuf::from))
        .unwrap_or_else(|| Path::new("/").to_path_buf())
}

fn list<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> String {
    paths.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn every_problem_has_a_fix() {
        for finding in all() {
            assert_eq!(finding.fix.is_some(), finding.severity != Severity::Good, "{}", finding.what);
        }
    }
}
