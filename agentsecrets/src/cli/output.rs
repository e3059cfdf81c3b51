//! Output that several verbs share: tables, JSON, warnings, and the failure of verbs that need a team.

use std::io::{self, Write};
use std::process::ExitCode;

use anstream::eprintln;

use crate::types::failure::{Exit, Failure};

/// Writes to standard output. A closed pipe is no failure.
pub(super) fn print_bytes(text: &[u8]) -> Result<ExitCode, Failure> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::from_error(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints `value` as one line of JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<ExitCode, Failure> {
    let mut text = serde_json::to_vec(value).map_err(Failure::from_error)?;
    text.push(b'\n');
    print_bytes(&text)
}

/// Prints a warning on standard error.
pub(super) fn warn(what: &str) {
    let yellow = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
    eprintln!("{yellow}warning:{yellow:#} {what}");
}

/// The failure of `command`, which would need a shared workspace.
pub(super) fn team_sync_unsupported(command: &str) -> Failure {
    let what =
        format!("`{command}` needs a team's workspace, and this version cannot share one: nothing was done");
    Failure::new(Exit::Failure, what).hint(
        "secrets, projects and the policy are this machine's; `secrets vault backup` makes a copy to carry",
    )
}

/// Formats a table with rounded borders. Other programs parse it, so no cell is empty.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let filled = |cell: &str| if cell.is_empty() { "—".to_owned() } else { cell.to_owned() };
    let all: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows.iter().map(|row| row.each_ref().map(|cell| filled(cell))))
        .collect();
    let width = |at: usize| all.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|at| width(at).unwrap_or(0)).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let lines: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} ")).collect();
        format!("│{}│\n", cells.join("│"))
    };
    let mut lines = all.iter().map(line);
    let head = lines.next().unwrap_or_default();
    let body: String = lines.collect();
    format!("{}{head}{}{body}{}", rule("╭", "┬", "╮"), rule("├", "┼", "┤"), rule("╰", "┴", "╯"))
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn empty_cell_is_filled() {
        let rows = [["shop".to_owned(), String::new()], ["ü".to_owned(), "text".to_owned()]];
        let expected = "╭──────┬──────╮\n│ Name │ What │\n├──────┼──────┤\n│ shop │ —    │\n│ ü    │ text │\n╰──────┴──────╯\n";
        assert_eq!(table(["Name", "What"], &rows), expected);
    }
}
