//! DNS for agents: the name server, the resolver behind it, and the sinkhole addresses of names that no rule
//! allows. No query leaves for such a name.

pub mod query_budget;
mod records;
pub mod resolver;
pub mod server;
pub(crate) mod sinkhole;
mod ttl;
