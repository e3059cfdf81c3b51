//! `cargo xtask`: the commands of the workspace. Each prints its steps, stops at the first failure, and installs or
//! names missing tools.

mod bench;
mod certificates;
mod demo;
mod digest;
mod dist;
mod ebpf;
mod packages;
mod soak;
mod systems;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The commands of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show agents that use a secret they never hold
    Demo,
    /// Run all checks and tests
    Test(test::Args),
    /// Run fuzz targets, the kill loop and the load for a long time; results go to target/soak.txt
    Soak(soak::Args),
    /// Measure the figures of the README and the manual
    Bench(bench::Args),
    /// Build the kernel programs, or check that the committed object comes from its source
    Ebpf(ebpf::Args),
    /// Build for Windows and check for macOS; results go to target/systems.txt
    Systems(systems::Args),
    /// Make the release files in target/dist: OCI image, packages, tarball, SBOM, notices, checksums
    Dist(dist::Args),
    /// Check the architecture: import cycles, order of folders, files, licences
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo => demo::run(),
        Command::Test(args) => test::run_all(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Bench(args) => bench::run_some(&args),
        Command::Ebpf(args) => ebpf::run(args),
        Command::Systems(args) => systems::run_all(&args),
        Command::Dist(args) => dist::run_all(&args),
        Command::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            workspace::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
