//! Text from outside, made safe to show: an agent must not be able to move a reader's cursor, hide
//! behind invisible characters, or turn a line's direction around.

use std::fmt::Write;

/// `text` with every control, direction and invisible character written as `\u{…}`.
pub fn visible(text: &str) -> String {
    bounded(text, usize::MAX)
}

/// Makes `text` visible and at most about `most` bytes long, in its place.
pub(super) fn tidy(text: &mut String, most: usize) {
    // Nearly all text is sound, and this is on every request's way.
    let plain = text.len() <= most && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !plain && (text.len() > most || text.chars().any(is_deceptive)) {
        *text = bounded(text, most);
    }
}

/// The same as `visible`, cut after `most` bytes or so, with a mark where it was cut.
fn bounded(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for character in text.chars() {
        if shown.len() >= most {
            shown.push('…');
            break;
        }
        if is_deceptive(character) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_deceive_a_reader_is_spelt_out() {
        assert_eq!(visible("a\n\u{1b}[2K\u{7f}\u{9b}b"), r"a\u{a}\u{1b}[2K\u{7f}\u{9b}b");
        assert_eq!(visible("exe\u{202e}gpj.\u{2066}x\u{200b}"), r"exe\u{202e}gpj.\u{2066}x\u{200b}");
        assert_eq!(visible("Grüße, 世界 🙂"), "Grüße, 世界 🙂");
    }

    #[test]
    fn long_text_is_cut_where_a_character_ends() {
        assert_eq!(bounded("ééé", 3), "éé…");
        assert_eq!(bounded("abc", 3), "abc");
    }
}
