//! `cargo xtask test`: all checks and tests that a change must pass, on a machine with Rust and apt. It stops at the
//! first failure, and skips nothing silently.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anstream::println;
use anyhow::{Context, Result, bail};

use crate::workspace::{self, cargo, heading, run};
use crate::{packages, tools};

/// Run all checks and tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also run the long tests, and write the output to target/test-full.txt
    #[arg(long)]
    full: bool,
}

/// Runs all steps.
pub(crate) fn run_all(args: &Args) -> Result<()> {
    if !workspace::is_root() {
        bail!(
            "the tests make cgroups, namespaces and kernel hooks, so they need root. Run:\n\n    {}",
            workspace::as_root(if args.full { "test --full" } else { "test" })
        );
    }
    let started = Instant::now();
    step("tools", || tools::components().and_then(|()| tools::install(tools::FOR_TESTS)))?;
    step("packages", packages::install)?;
    step("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
    step("clippy", || {
        run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    step("tidy", crate::tidy::run)?;
    step("kernel object", crate::ebpf::check_digest)?;
    if args.full {
        step("other systems", crate::systems::prepare_for_tests)?;
        step("more tools", || tools::install(tools::FOR_MORE_TESTS).and_then(|()| packages::install_more()))?;
        step("dist", crate::dist::for_tests)?;
    }
    step("tests", || tests(args.full))?;
    heading(&format!("all passed in {} s", started.elapsed().as_secs()));
    Ok(())
}

fn step(name: &str, action: impl FnOnce() -> Result<()>) -> Result<()> {
    heading(name);
    let started = Instant::now();
    action().with_context(|| format!("{name} failed"))?;
    println!("   {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// Cargo with a time limit, so that a test that hangs is a failure.
fn with_time_limit(time: &str) -> Command {
    let cargo = cargo();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=30s", time]).arg(cargo.get_program()).current_dir(workspace::root());
    command
}

/// Runs `cargo test`. `--full` adds the tests that are marked `#[ignore]`, each with its reason.
fn tests(full: bool) -> Result<()> {
    let mut command = with_time_limit(if full { "8h" } else { "45m" });
    command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]);
    if !full {
        return run(&mut command);
    }
    command.args(["--", "--include-ignored"]);
    let path = workspace::root().join("target/test-full.txt");
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read the output of the tests")?;
            println!("{line}");
            writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let status = child.wait()?;
    println!("   written to {}", path.display());
    if !status.success() {
        bail!("`{}` failed ({status})", workspace::show(&command));
    }
    Ok(())
}
