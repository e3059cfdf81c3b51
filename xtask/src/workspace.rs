//! Functions for every command: the path of the workspace, programs whose failure is an error, and messages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anstream::{eprintln, println};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, bail};

/// The workspace's top folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// The cargo that runs xtask.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs `command` on this terminal. An exit code other than 0 is an error with the command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Whether `command` starts and succeeds. Its output is discarded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command line as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Whether this process may create namespaces, cgroups and kernel hooks.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The command line that runs `cargo xtask COMMAND` as root with this user's Rust.
pub(crate) fn as_root(command: &str) -> String {
    format!("sudo -E env \"PATH=$PATH\" cargo xtask {command}")
}

/// Prints a heading.
pub(crate) fn heading(text: &str) {
    let bold = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    println!("\n{bold}── {text} {}{bold:#}", "─".repeat(74_usize.saturating_sub(text.chars().count())));
}

/// Prints an error and its causes on stderr.
pub(crate) fn print_error(error: &anyhow::Error) {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    eprintln!("\n{red}error:{red:#} {error:#}");
}
