//! Privilege separation: messages and descriptors between processes of ours, and forked helpers. It does not
//! decide who may do something; the processes that use it do.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod async_channel;
mod channel;
pub mod confirmation;
pub mod frontend;
pub mod helper;
pub mod invocation;
mod message;
pub mod monitor;
mod peer;
pub mod request;

pub use async_channel::AsyncChannel;
pub use channel::Channel;
pub use message::{Limits, Message};
pub use peer::PeerProcess;
