//! The real servers: names resolved by us, addresses checked before they are dialled, connections
//! never shared between agents or credentials.

pub mod client;
mod connect;
mod failure;
mod normalize;
mod pool;
mod progress;
pub mod ssrf_guard;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls_configs;
mod tunnel;
