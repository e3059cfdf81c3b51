//! The real servers: names resolved by us, addresses checked before they are dialled, connections
//! never shared between agents or credentials.

pub mod budget;
pub mod client;
mod configs;
mod connector;
mod failure;
pub mod guard;
pub mod names;
mod pool;
mod progress;
mod records;
pub mod resolver;
mod shape;
mod synthetic;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tunnel;
