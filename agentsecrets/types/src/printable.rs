//! Text from outside, made safe to repeat in a message.

/// The first 60 characters of a text, with its control characters escaped.
pub fn excerpt(text: &str) -> String {
    text.chars()
        .take(60)
        .flat_map(|c| {
            if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
                .chars()
                .collect::<Vec<_>>()
        })
        .collect()
}
