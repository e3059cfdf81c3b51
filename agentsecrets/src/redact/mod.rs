//! Answers without secrets: every spendable secret of the agent, in every encoding we name, is taken
//! out of headers, bodies and trailers, streaming, whatever the chunking. An answer that cannot be
//! searched is refused, never passed on.

pub mod additions;
mod answer;
mod capture;
mod conversation;
pub mod decode;
mod encodings;
mod grpc;
mod headers;
mod json_at;
pub mod patterns;
mod prepare;
pub mod stream;

pub use answer::{Findings, Redactor};
pub use capture::capture;
pub use conversation::Conversation;
pub(crate) use prepare::prepare;
