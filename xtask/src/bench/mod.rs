//! `cargo xtask bench`: measures what the README and the manual give figures for. What is in our own process alone is a
//! program in `agentsecrets/benches`; `proxy` measures the whole product beside its peers.

mod proxy;

use anyhow::{Result, bail};

use crate::workspace::{cargo, heading, run};

/// What there is to measure, and how each is shown.
const BENCHES: [(&str, &str); 3] = [
    ("redact", "the search of answers, beside a copy of them"),
    ("decide", "one decision, beside ten thousand sessions and tokens"),
    (proxy::NAME, "requests, connections and bytes, beside haproxy and nginx"),
];

/// Print the figures that the README and the manual give.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this one, such as `redact`
    name: Option<String>,
}

/// Runs them.
pub(crate) fn run_some(args: &Args) -> Result<()> {
    let is_asked = |name: &str| args.name.as_deref().is_none_or(|asked| asked == name);
    let asked: Vec<_> = BENCHES.iter().filter(|(name, _)| is_asked(name)).collect();
    if asked.is_empty() {
        bail!("there is no such measurement; there are: {}", BENCHES.map(|(name, _)| name).join(", "));
    }
    for (name, shown) in asked {
        heading(shown);
        if *name == proxy::NAME {
            proxy::run()?;
        } else {
            run(cargo().args(["bench", "--quiet", "--package", "agentsecrets", "--bench", name]))?;
        }
    }
    Ok(())
}
