//! Request bodies. A body streams unless a rule may fill secrets into it; then it is buffered up to a
//! limit before the decision, because the secrets that it names are part of the decision. Bytes that are
//! not filled leave unchanged.

mod budget;
mod digest;
mod fill;
mod form;
pub(super) mod json;
mod multipart;
mod quoted;
mod read;
mod request_body;
#[cfg(test)]
mod tests;

pub(crate) use budget::BodyBudget;
pub(super) use fill::signature_header;
pub(crate) use quoted::QuotedPlaceholders;
pub(super) use read::buffer;
pub(crate) use request_body::RequestBody;
