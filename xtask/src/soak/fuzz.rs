//! Runs the fuzz targets, two at once, with libFuzzer and AddressSanitizer on nightly Rust and the workspace's
//! Cargo.lock. New corpus inputs stay in `target/fuzz`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anstream::println;
use anyhow::{Context, Result, bail};

use super::report::Report;
use crate::workspace::{self, run as run_command, succeeds};

/// The number of targets that run at once.
const CONCURRENCY: usize = 2;

/// Builds and runs `wanted`, or all targets.
pub(super) fn run(wanted: &[String], time: Duration, report: &mut Report) -> Result<()> {
    let root = workspace::root();
    let folder = root.join("agentsecrets/fuzz");
    let targets = targets(&folder, wanted)?;
    build(&root)?;
    let mut failed = Vec::new();
    for pair in targets.chunks(CONCURRENCY) {
        let running: Vec<Running> =
            pair.iter().map(|name| Running::start(&root, name, time)).collect::<Result<_>>()?;
        for target in running {
            let name = target.name.clone();
            let (line, passed) = target.finish()?;
            report.line(&line)?;
            if !passed {
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} failed; the inputs are in {}/artifacts", failed.join(", "), folder.display());
    }
    Ok(())
}

fn targets(folder: &Path, wanted: &[String]) -> Result<Vec<String>> {
    let mut known = Vec::new();
    for file in folder.join("fuzz_targets").read_dir()? {
        known.extend(file?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    known.sort();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        bail!("there is no fuzz target '{unknown}', but {}", known.join(", "));
    }
    Ok(if wanted.is_empty() { known } else { wanted.to_vec() })
}

/// `rustup run nightly cargo …`, independent of the cargo that runs xtask.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(arguments);
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").current_dir(workspace::root());
    command
}

fn build(root: &Path) -> Result<()> {
    if !succeeds(&mut nightly(&["--version"])) {
        println!("   installing a nightly compiler");
        run_command(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
        ]))?;
    }
    let tools = root.join("target/tools");
    if !tools.join("bin/cargo-fuzz").exists() {
        println!("   installing cargo-fuzz");
        let mut install = workspace::cargo();
        run_command(install.args(["install", "--quiet", "cargo-fuzz", "--locked", "--root"]).arg(&tools))?;
    }
    // The targets use the dependency versions of the release.
    fs::copy(root.join("Cargo.lock"), root.join("agentsecrets/fuzz/Cargo.lock"))?;
    let mut build = nightly(&["fuzz", "build", "--target-dir"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools.join("bin")).chain(std::env::split_paths(&path));
    build.arg(root.join("target/fuzz")).env("PATH", std::env::join_paths(paths)?);
    run_command(build.current_dir(root.join("agentsecrets")))
}

struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Running {
    fn start(root: &Path, name: &str, time: Duration) -> Result<Self> {
        let fuzz = root.join("agentsecrets/fuzz");
        let built = root.join("target/fuzz");
        let (found, artifacts) = (built.join("corpus").join(name), fuzz.join("artifacts").join(name));
        fs::create_dir_all(&found)?;
        fs::create_dir_all(&artifacts)?;
        let log = built.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("nice");
        command.arg(built.join("x86_64-unknown-linux-gnu/release").join(name));
        command.arg(found).arg(fuzz.join("corpus").join(name));
        command
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-max_total_time={}", time.as_secs()))
            .args(["-max_len=16384", "-timeout=20", "-rss_limit_mb=3072", "-print_final_stats=1"]);
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        let child = child.with_context(|| format!("cannot start `{}`", workspace::show(&command)))?;
        Ok(Self { name: name.into(), child, log, started: Instant::now() })
    }

    /// Waits for the end. Returns a line of results, and whether nothing was found.
    fn finish(mut self) -> Result<(String, bool)> {
        let status = self.child.wait()?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        let last = |label: &str| {
            let rest = log.rsplit_once(label).map(|(_, rest)| rest.split_whitespace().next());
            rest.flatten().unwrap_or("?").to_owned()
        };
        let line = format!(
            "fuzz {:<12} {:>5} s, {} inputs, {} edges, {} MB: {}",
            self.name,
            self.started.elapsed().as_secs(),
            last("stat::number_of_executed_units:"),
            last(" cov: "),
            last("stat::peak_rss_mb:"),
            if status.success() {
                "nothing found".to_owned()
            } else {
                format!("FAILED ({status}), see {}", self.log.display())
            }
        );
        Ok((line, status.success()))
    }
}
