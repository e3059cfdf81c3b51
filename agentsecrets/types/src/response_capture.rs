//! The values that a rule takes out of responses: captured values are kept as secrets with a placeholder in
//! their place, and stripped fields are removed.

use std::sync::Arc;

use http::HeaderName;

use crate::json_path::JsonPath;
use crate::name::SecretName;

/// The values to capture and strip from responses to one rule's requests.
#[derive(Debug, PartialEq, Eq)]
pub struct ResponseCapture {
    /// The captured values, each with the name of its new secret.
    pub captures: Vec<(ResponseField, SecretName)>,
    /// The stripped values.
    pub strips: Vec<ResponseField>,
}

/// The location of a value in a response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ResponseField {
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie in `Set-Cookie`.
    Cookie(Arc<str>),
    /// A value in a JSON body.
    Json(JsonPath),
}

impl ResponseCapture {
    /// The JSON fields, with the name of the new secret if the value is captured.
    pub fn json_fields(&self) -> impl Iterator<Item = (&JsonPath, Option<&SecretName>)> {
        let captures = self.captures.iter().map(|(source, name)| (source, Some(name)));
        captures.chain(self.strips.iter().map(|source| (source, None))).filter_map(|(source, name)| {
            match source {
                ResponseField::Json(path) => Some((path, name)),
                ResponseField::Header(_) | ResponseField::Cookie(_) => None,
            }
        })
    }
}
