//! The `agentsecrets` program.

fn main() -> std::process::ExitCode {
    agentsecrets::cli::main()
}
