//! `cargo xtask soak`: what must hold for longer than a test run lasts. Each part fails on what it finds,
//! and writes what it saw to `target/soak.txt`, pass or fail.

mod fuzz;
mod load;
mod process;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;

use anstream::println;
use anyhow::{Context, Result, bail};

use crate::tools;
use crate::workspace::{self, cargo, heading, run as run_command};

/// How long each fuzz target runs, and the load, unless told otherwise.
const FUZZ_MINUTES: u64 = 10;
const LOAD_MINUTES: u64 = 20;

/// What takes too long for every change.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One part only
    #[arg(value_enum)]
    part: Option<Part>,
    /// How long each fuzz target runs [default: 10], and the load [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
    /// Fuzz this target only; may be repeated
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Every fuzz target
    Fuzz,
    /// 200 kills of the interceptor under load
    Kill,
    /// Load: no growth in memory, descriptors or map entries
    Load,
}

/// Runs one part or all of them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = |part| args.part.is_none_or(|only| only == part);
    let needs_root = wanted(Part::Kill) || wanted(Part::Load);
    if needs_root && !workspace::is_root() {
        bail!(
            "killing and loading need root: they make cgroups and kernel hooks. Run:\n\n    {}",
            workspace::as_root("soak")
        );
    }
    let minutes = |otherwise| Duration::from_secs(60 * args.minutes.unwrap_or(otherwise));
    let mut report = Report::begin()?;
    if wanted(Part::Fuzz) {
        heading("fuzz");
        fuzz::run(&args.target, minutes(FUZZ_MINUTES), &mut report)?;
    }
    if needs_root {
        tools::install(tools::FOR_TESTS)?;
    }
    if wanted(Part::Kill) {
        heading("kill");
        kill(&mut report)?;
    }
    if wanted(Part::Load) {
        heading("load");
        load::run(minutes(LOAD_MINUTES), &mut report)?;
    }
    heading("nothing was found");
    Ok(())
}

/// The kill loop is a test like any other; only its length is not.
fn kill(report: &mut Report) -> Result<()> {
    let done = run_command(cargo().args([
        "test",
        "--package",
        "agentsecrets",
        "--test",
        "tests",
        "end_to_end::kill_loop::",
        "--",
        "--include-ignored",
        "--nocapture",
    ]));
    let said = if done.is_ok() { "passed" } else { "FAILED" };
    report.say(&format!("kill: 200 kills under load: {said}"))?;
    done
}

/// What was seen: on the terminal and in a file.
struct Report(File);

impl Report {
    fn begin() -> Result<Self> {
        let path = workspace::root().join("target/soak.txt");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self(file.with_context(|| format!("cannot write {}", path.display()))?))
    }

    fn say(&mut self, line: &str) -> Result<()> {
        println!("   {line}");
        writeln!(self.0, "{line}").context("cannot write target/soak.txt")
    }
}
