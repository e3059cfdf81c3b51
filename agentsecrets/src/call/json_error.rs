//! Describes JSON errors without repeating the input, except names of fields: a value of the wrong type may
//! be a secret that was put there by mistake.

/// The starts of serde messages that contain only the name of a field.
const FIELD_NAME_ERRORS: [&str; 3] = ["missing field", "unknown field", "duplicate field"];

/// Describes `error` without its input.
pub(crate) fn describe(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    if !error.is_data() || FIELD_NAME_ERRORS.iter().any(|start| whole.starts_with(start)) {
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
    fn error_does_not_repeat_input() {
        for (text, expected) in [
            ("", "EOF while parsing a value"),
            ("sk_live", "expected value at line 1 column 1"),
            ("{}", "missing field `number`"),
            (r#"{"nomber": "sk_live"}"#, "unknown field `nomber`"),
            (r#"{"number": 1, "number": 1}"#, "duplicate field `number`"),
            (r#"{"number": "sk_live"}"#, "a value is not what it must be, at line 1 column"),
            (r#""sk_live""#, "a value is not what it must be, at line 1 column"),
        ] {
            let message = describe(&serde_json::from_str::<Asked>(text).unwrap_err());
            assert!(message.starts_with(expected) && !message.contains("live"), "{text}: {message}");
        }
        let value = serde_json::json!({"number": "sk_live"});
        let message = describe(&serde_json::from_value::<Asked>(value).unwrap_err());
        assert_eq!(message, "a value is not what it must be");
    }
}
