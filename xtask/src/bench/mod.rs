//! `cargo xtask bench`: measures the figures of the README and the manual. Programs in `agentsecrets/benches` measure
//! parts; `proxy` measures the whole program and other proxies.

mod proxy;

use anyhow::{Result, bail};

use crate::workspace::{cargo, heading, run};

/// The name and the heading of each benchmark.
const BENCHES: [(&str, &str); 3] = [
    ("redact", "search of responses, compared with a copy"),
    ("decide", "one decision, with ten thousand sessions and tokens"),
    (proxy::NAME, "requests, connections and bytes, compared with haproxy and nginx"),
];

/// Measure the figures of the README and the manual.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run this benchmark only, such as `redact`
    name: Option<String>,
}

/// Runs the benchmarks.
pub(crate) fn run_some(args: &Args) -> Result<()> {
    let is_selected = |name: &str| args.name.as_deref().is_none_or(|selected| selected == name);
    let selected: Vec<_> = BENCHES.iter().filter(|(name, _)| is_selected(name)).collect();
    if selected.is_empty() {
        bail!("there is no such benchmark; there are: {}", BENCHES.map(|(name, _)| name).join(", "));
    }
    for (name, shown) in selected {
        heading(shown);
        if *name == proxy::NAME {
            proxy::run()?;
        } else {
            run(cargo().args(["bench", "--quiet", "--package", "agentsecrets", "--bench", name]))?;
        }
    }
    Ok(())
}
