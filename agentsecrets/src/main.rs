//! `agentsecrets`: parse, run, exit code.

fn main() -> std::process::ExitCode {
    agentsecrets::cli::main()
}
