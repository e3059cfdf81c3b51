//! HTTP as the agent speaks it: the server's side of every exchange, and the one authority that all of
//! its names must agree on.

mod activity;
pub mod body;
pub mod disguise;
pub mod endpoint;
pub mod frames;
mod gate;
pub mod incoming;
pub mod reply;
pub mod server;
pub mod spelling;
pub mod strict;
pub mod target;
pub mod upgrade;
