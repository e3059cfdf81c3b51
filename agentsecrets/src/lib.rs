//! AgentSecrets keeps credentials out of the reach of AI agents: an agent names a secret, and the value is
//! inserted into its request on the wire and removed from the response.
//!
//! The modules follow the life of a request:
//!
//! ```text
//! intercept ─ identity ─ tls ─ http ─ policy ─ authz ─ approval ─ credentials ─ inject ─ upstream ─ redact ─ audit
//! ```
//!
//! - `types` and `sys` are below all of them; `store` and `vault` hold the secrets; `dns` answers the agents' names.
//! - [`pipeline`] is the request on one page.
//! - [`server`], [`launch`], `operator` and `kubernetes` are processes; [`config`] is their configuration.
//! - [`cli`] has one file per verb, [`mcp`] is the interface for models, [`call`] makes one request for either.

pub use agentsecrets_audit as audit;
#[cfg(target_os = "linux")]
pub use agentsecrets_privsep as privsep;
pub use agentsecrets_redact as redact;
pub use agentsecrets_sys as sys;
pub use agentsecrets_types as types;
pub use agentsecrets_vault as vault;

mod approval;
pub mod authz;
mod call;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod dns;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod identity;
mod inject;
pub mod intercept;
#[cfg(target_os = "linux")]
pub mod kubernetes;
#[cfg(target_os = "linux")]
pub mod launch;
#[cfg(not(target_os = "linux"))]
#[path = "launch/elsewhere.rs"]
pub mod launch;
pub mod manual;
mod mcp;
#[cfg(target_os = "linux")]
mod operator;
pub mod pipeline;
pub mod policy;
mod server;
pub mod store;
pub mod tls;
pub mod upstream;
