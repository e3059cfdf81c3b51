//! Tables with rounded borders, as other programs that call us read them: a cell is never empty.

/// The table of `rows` under `head`.
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
    fn columns_are_as_wide_as_their_widest_cell_and_no_cell_is_empty() {
        let rows = [["shop".to_owned(), String::new()], ["ü".to_owned(), "text".to_owned()]];
        let expected = "╭──────┬──────╮\n│ Name │ What │\n├──────┼──────┤\n│ shop │ —    │\n│ ü    │ text │\n╰──────┴──────╯\n";
        assert_eq!(table(["Name", "What"], &rows), expected);
    }
}
