//! How the demo looks: light boxes, few colours (none where `NO_COLOR` or a pipe says so), at most 96
//! columns.

use anstream::println;
use anstyle::{AnsiColor, Style};

/// What a cell means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    /// What an agent may see.
    Safe,
    /// The real value.
    Hot,
    /// A refusal.
    Refused,
}

/// Text and what it means.
pub(super) type Cell = (String, Tone);

/// A cell.
pub(super) fn cell(text: impl Into<String>, tone: Tone) -> Cell {
    (text.into(), tone)
}

fn style(tone: Tone) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    match tone {
        Tone::Plain => Style::new(),
        Tone::Dim => Style::new().dimmed(),
        Tone::Safe => colour(AnsiColor::Green),
        Tone::Hot => colour(AnsiColor::Yellow).bold(),
        Tone::Refused => colour(AnsiColor::Red),
    }
}

/// The first line.
pub(super) fn title(text: &str) {
    let bold = Style::new().bold();
    println!("\n  {bold}AgentSecrets{bold:#} · {text}");
}

/// A chapter's heading.
pub(super) fn chapter(number: usize, text: &str) {
    let (bold, cyan) = (Style::new().bold(), Style::new().bold().fg_color(Some(AnsiColor::Cyan.into())));
    println!("\n  {cyan}{number}{cyan:#}  {bold}{text}{bold:#}\n");
}

/// A command as a person would type it.
pub(super) fn command(text: &str) {
    let dim = style(Tone::Dim);
    println!("     {dim}${dim:#} {text}");
}

/// A line of text.
pub(super) fn line(text: &str, tone: Tone) {
    let style = style(tone);
    println!("     {style}{text}{style:#}");
}

/// A list of rows under headings, in a light box.
pub(super) fn table(headings: &[&str], rows: &[Vec<Cell>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.chars().count());
        cells.chain(headings.get(column).map(|text| text.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let dim = style(Tone::Dim);
    let rule = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        println!("     {dim}{left}{}{right}{dim:#}", parts.join(middle));
    };
    let row = |cells: &[Cell]| {
        let mut text = format!("     {dim}│{dim:#}");
        for ((content, tone), width) in cells.iter().zip(&widths) {
            let (style, padding) = (style(*tone), " ".repeat(width - content.chars().count()));
            text.push_str(&format!(" {style}{content}{style:#}{padding} {dim}│{dim:#}"));
        }
        println!("{text}");
    };
    rule("╭", "┬", "╮");
    row(&headings.iter().map(|text| cell(*text, Tone::Dim)).collect::<Vec<_>>());
    rule("├", "┼", "┤");
    rows.iter().for_each(|cells| row(cells));
    rule("╰", "┴", "╯");
}

/// A secret as it may be shown: how it begins and how it ends.
pub(super) fn masked(value: &str) -> String {
    let characters: Vec<char> = value.chars().collect();
    match characters.as_slice() {
        [start @ .., a, b, c, d] if start.len() >= 16 => {
            let start: String = start.iter().take(8).collect();
            format!("{start}{}{}", "•".repeat(8), [a, b, c, d].into_iter().collect::<String>())
        }
        _ => "•".repeat(8),
    }
}

/// At most `width` characters, with an ellipsis where some are missing.
pub(super) fn short(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_value_shows_its_ends_only() {
        assert_eq!(masked("sk_demo_0123456789abcdef"), "sk_demo_••••••••cdef");
        assert_eq!(masked("short"), "••••••••");
    }
}
