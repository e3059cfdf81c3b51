//! The specification, run: what a person, an agent or an attacker does, and what happens. Every test
//! drives the real binary against real servers, and needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod approvals;
mod broken;
mod capability;
mod clients;
mod containers;
mod door;
mod ebpf;
mod harden;
mod hostile;
mod http;
mod kubernetes;
mod launch;
mod load;
mod mcp;
mod names;
mod person;
mod proxy;
mod redaction;
mod references;
mod scope;
mod secrets;
mod signing;
mod spine;
mod stores;
mod stream;
mod support;
mod systems;
mod tls;
mod trust;
