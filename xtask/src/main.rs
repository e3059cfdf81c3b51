//! `cargo xtask`: the workspace's own commands. Each says what it does, stops at the first failure,
//! and installs or names what it lacks.

mod bench;
mod demo;
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

/// The workspace's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch agents spend a credential that they never hold
    Demo,
    /// Run every check and every test
    Test(test::Args),
    /// What takes too long for every change: fuzzing, the kill loop, load; written to target/soak.txt
    Soak(soak::Args),
    /// Print the figures that the README gives
    Bench(bench::Args),
    /// Build the kernel programs, or prove that the committed object comes from its source
    Ebpf(ebpf::Args),
    /// See what the crate is on Windows and macOS; what was seen is in target/systems.txt
    Systems(systems::Args),
    /// Make what users get, in target/dist: OCI image, Debian package, tarball, bill of materials, checksums
    Dist(dist::Args),
    /// Hold the architecture: layers, sizes, unsafe code, licences
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Demo => demo::run(),
        Verb::Test(args) => test::run_all(&args),
        Verb::Soak(args) => soak::run(&args),
        Verb::Bench(args) => bench::run_some(&args),
        Verb::Ebpf(args) => ebpf::run(args),
        Verb::Systems(args) => systems::run_all(&args),
        Verb::Dist(args) => dist::run_all(&args),
        Verb::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            workspace::complain(&error);
            ExitCode::FAILURE
        }
    }
}
