//! Answers without secrets: every spendable secret of the agent, in every encoding we name, is taken
//! out of headers, bodies and trailers, streaming, whatever the chunking. An answer that cannot be
//! searched is refused, never passed on.

pub mod additions;
pub mod alarm;
mod answer;
mod capture;
mod conversation;
pub mod decode;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod echoes;
mod fold;
mod forms;
mod gate;
mod grpc;
mod headers;
mod json_at;
pub mod mask;
mod parts;
pub mod patterns;
mod prepare;
#[cfg(test)]
mod property_tests;
mod search;
pub mod stream;
mod unescape;

pub use alarm::Findings;
pub use answer::Redactor;
pub use capture::capture;
pub use conversation::Conversation;
pub(crate) use prepare::prepare;
