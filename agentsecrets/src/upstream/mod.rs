//! Connections to upstream servers. We resolve the name, check the address before we dial it, and verify the
//! certificate; agents and credentials never share a connection.

pub mod client;
mod connect;
mod failure;
mod normalize;
mod pool;
mod progress;
mod ssrf_guard;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls_configs;
