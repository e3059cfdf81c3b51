//! The operator's access to secrets that belong to the daemon's own user. It works like `sudo` without a
//! set-user-id program: the client sends its arguments and standard descriptors; the daemon asks the kernel
//! who the client is, authorises the command, and starts its own program with these arguments, a clean
//! environment and that person's private home. Every command goes through this one mechanism.
//!
//! ```text
//! client ── frontend ── monitor ── session worker ── command
//! ```
//!
//! The **frontend** reads what clients send: it runs as the daemon's user, reaches no file and may make few
//! system calls. The **monitor** keeps its privileges, reads no byte, and forks a **session worker** for each
//! request. The worker identifies the client, has the command authorised, and starts it as the daemon's user
//! (`run` and `env` keep what they need to start a command as the requesting person).

pub(crate) mod authorizer;
pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod invocation;
mod peer;
pub(crate) mod polkit;
pub(crate) mod session_worker;
pub(crate) mod system_config;
pub(crate) mod user_home;
