//! Integration tests: an operator, an agent or an attacker acts, and the result is checked. Every test drives
//! the real binary against real servers and needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod approvals;
mod audit_export;
mod authz;
mod clients;
mod compatibility;
mod containers;
mod credentials;
mod dns;
mod ebpf;
mod end_to_end;
mod hardening;
mod http;
mod injection;
mod kubernetes;
mod launch;
mod load;
mod mcp;
mod operator_commands;
mod privsep;
mod projects;
mod protocol_errors;
mod proxy;
mod redaction;
mod sandbox_escape;
mod secrets;
mod stores;
mod support;
mod tls;
mod trust;
mod windows;
