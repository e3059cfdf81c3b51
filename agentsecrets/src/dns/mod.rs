//! Names for agents: the name server that they ask, the resolver behind it, and the addresses that stand for
//! names which no rule allows.

pub mod query_budget;
mod records;
pub mod resolver;
pub mod server;
mod sinkhole;
