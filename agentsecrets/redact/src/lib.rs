//! Answers without secrets: every spendable secret of the agent, in every encoding we name, is taken
//! out of headers, bodies and trailers, streaming, whatever the chunking. An answer that cannot be
//! searched is refused, never passed on.
#![forbid(unsafe_code)]

mod accept_encoding;
mod canonical;
mod capture;
pub mod content_coding;
pub mod dynamic_patterns;
mod encodings;
mod fragments;
mod grpc;
pub mod guess_detector;
mod headers;
mod json_values;
pub mod mask;
pub mod patterns;
mod prefilter;
#[cfg(test)]
mod property_tests;
mod response;
mod search;
pub mod stream;
#[cfg(any(test, feature = "fuzzing"))]
pub mod test_encoders;
mod unescape;
mod websocket;

pub use accept_encoding::limit_codings;
pub use capture::capture;
pub use guess_detector::RedactionReport;
pub use response::Redactor;
pub use websocket::Conversation;
