//! Names that a person, a policy or an agent gives to things. Each exists only when valid, so that no
//! later stage checks again, and none can carry a control character into a log.

use std::fmt;
use std::str::FromStr;

/// The longest name accepted, in bytes.
const MAX_LEN: usize = 128;

/// Why a name was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{shown}' is not a valid {kind}: {rule}")]
pub struct InvalidName {
    kind: &'static str,
    shown: String,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $valid:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if text.is_empty() || text.len() > MAX_LEN || !valid(text) {
                    let shown = text.chars().take(40).flat_map(char::escape_default).collect();
                    return Err(InvalidName { kind: $kind, shown, rule: $rule });
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// The name of a secret, such as `STRIPE_KEY`: what an agent says instead of the value.
    SecretName,
    "secret name",
    |text| !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
    "letters, digits and underscores, not starting with a digit, at most 128"
);
name!(
    /// The name of an agent entry in the policy.
    AgentName,
    "agent name",
    is_slug,
    "letters, digits, '-', '_' and '.', at most 128"
);
name!(
    /// A project: the first part of a secret's address in a store.
    Project,
    "project name",
    is_slug,
    "letters, digits, '-', '_' and '.', at most 128"
);
name!(
    /// An environment, such as `development`: the second part of a secret's address in a store.
    Environment,
    "environment name",
    is_slug,
    "letters, digits, '-', '_' and '.', at most 128"
);
name!(
    /// A workspace: what a team will share.
    Workspace,
    "workspace name",
    is_slug,
    "letters, digits, '-', '_' and '.', at most 128"
);

fn is_slug(text: &str) -> bool {
    !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl Default for Project {
    fn default() -> Self {
        Self("default".into())
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self("personal".into())
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self("development".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_name_is_an_identifier() {
        assert!("STRIPE_KEY".parse::<SecretName>().is_ok());
        for bad in ["", "1A", "A-B", "A B", "A\n", "É", &"A".repeat(129)] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn error_contains_no_control_character() {
        let error = "\u{1b}[31mred".parse::<SecretName>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'));
    }
}
