//! AgentSecrets: credentials for AI agents that never hold them.
//!
//! The folders are the life of a request, in order:
//!
//! ```text
//! connection ─ identity ─ tls ─ exchange ─ policy ─ resolve ─ inject ─ upstream ─ redact ─ audit
//! ```
//!
//! `base` lies under all of them; `pipeline` strings them together; `app`, `launch` and `door` are processes;
//! `cli` is what a person types, `mcp` what a model calls.

pub mod app;
pub mod audit;
pub mod base;
pub mod capability;
pub mod cli;
pub mod connection;
#[cfg(target_os = "linux")]
pub mod door;
pub mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod inject;
#[cfg(target_os = "linux")]
pub mod launch;
#[cfg(not(target_os = "linux"))]
#[path = "launch/elsewhere.rs"]
pub mod launch;
pub mod manual;
pub mod mcp;
pub mod pipeline;
pub mod policy;
pub mod redact;
pub mod resolve;
pub mod store;
pub mod tls;
pub mod upstream;
