//! What is wrong with JSON that somebody gave, in words that repeat nothing of it but names of fields: a value of
//! the wrong kind may be a secret that was put there by mistake.

/// How serde begins what it says of a field by its name alone.
const OF_A_FIELD: [&str; 3] = ["missing field", "unknown field", "duplicate field"];

/// What `error` says, without what was given.
pub fn describe(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    if !error.is_data() || OF_A_FIELD.iter().any(|start| whole.starts_with(start)) {
        return whole;
    }
    match error.line() {
        0 => "a value is not what it must be".to_owned(),
        line => format!("a value is not what it must be, at line {line} column {}", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[expect(dead_code, reason = "only that it is read matters")]
        number: u32,
    }

    #[test]
    fn a_mistake_is_told_without_what_was_given() {
        for (text, told) in [
            ("", "EOF while parsing a value"),
            ("sk_live", "expected value at line 1 column 1"),
            ("{}", "missing field `number`"),
            (r#"{"nomber": "sk_live"}"#, "unknown field `nomber`"),
            (r#"{"number": 1, "number": 1}"#, "duplicate field `number`"),
            (r#"{"number": "sk_live"}"#, "a value is not what it must be, at line 1 column"),
            (r#""sk_live""#, "a value is not what it must be, at line 1 column"),
        ] {
            let wrong = describe(&serde_json::from_str::<Asked>(text).unwrap_err());
            assert!(wrong.starts_with(told) && !wrong.contains("live"), "{text}: {wrong}");
        }
        let value = serde_json::json!({"number": "sk_live"});
        let wrong = describe(&serde_json::from_value::<Asked>(value).unwrap_err());
        assert_eq!(wrong, "a value is not what it must be");
    }
}
