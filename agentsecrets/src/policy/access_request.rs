//! What is put to the policy: a request, stripped to what rules can speak about.

use http::Method;

use crate::types::name::SecretName;
use crate::types::target::Target;

use super::grant::Style;

pub use crate::policy::location::{Area, Place, Spot};

/// One request to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The agreed authority.
    pub target: &'a Target,
    /// The method.
    pub method: &'a Method,
    /// The path as it came, still encoded, without the query.
    pub path: &'a str,
    /// Whether it asks for a WebSocket, whose messages may name secrets too.
    pub websocket: bool,
    /// The secrets that the request names.
    pub references: &'a [Reference],
}

/// A secret that a request asks to be spent, and how: by a placeholder that stands somewhere, or by a
/// header that says in what style.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Which secret.
    pub name: SecretName,
    /// How it is asked for.
    pub style: Style,
}

impl Reference {
    /// A placeholder for `name` that stands at `spot`.
    pub fn placeholder(name: SecretName, spot: Spot) -> Self {
        Self { name, style: Style::Placeholder(spot) }
    }

    /// Whether it is the text of a placeholder, which may merely be quoted.
    pub fn is_text(&self) -> bool {
        matches!(self.style, Style::Placeholder(_))
    }
}
