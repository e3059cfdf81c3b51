//! `cargo xtask bench`: measures what the README gives figures for, each by its own program in `agentsecrets/benches`.

use anyhow::{Result, bail};

use crate::workspace::{cargo, heading, run};

/// What there is to measure, and how each is shown.
const BENCHES: [(&str, &str); 2] = [
    ("redact", "the search of answers, beside a copy of them"),
    ("decide", "one decision, beside ten thousand sessions and tokens"),
];

/// Print the figures that the README gives.
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
        run(cargo().args(["bench", "--quiet", "--package", "agentsecrets", "--bench", name]))?;
    }
    Ok(())
}
