//! `cargo xtask soak`: fuzzing, kills and load for longer than a test run. Each part fails if it finds a fault, and
//! appends its results to `target/soak.txt` in either case.

mod fuzz;
mod load;
mod process;
mod report;

use std::time::Duration;

use anyhow::{Result, bail};

use self::report::Report;

use crate::tools;
use crate::workspace::{self, cargo, heading, run as run_command};

/// Default duration of each fuzz target.
const FUZZ_MINUTES: u64 = 10;
/// Default duration of the load.
const LOAD_MINUTES: u64 = 20;

/// Run fuzz targets, kills and load for a long time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One part only
    #[arg(value_enum)]
    part: Option<Part>,
    /// Duration of each fuzz target [default: 10] and of the load [default: 20], in minutes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
    /// Fuzz this target only; may be repeated
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Run every fuzz target
    Fuzz,
    /// Kill the interceptor 200 times under load
    Kill,
    /// Check that memory, descriptors and map entries do not grow under load
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
    let mut report = Report::open()?;
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

/// Runs the test that kills the interceptor 200 times.
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
    let result = if done.is_ok() { "passed" } else { "FAILED" };
    report.line(&format!("kill: 200 kills under load: {result}"))?;
    done
}
