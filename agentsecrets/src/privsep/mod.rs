//! The person's door: how a person's command line reaches files that belong to the daemon's own user. It is
//! `sudo` without a set-user-id program: our client sends its arguments and its standard descriptors; the
//! daemon asks the kernel who that is, judges, and starts its own program with those arguments, an
//! environment of its own and that person's private home. So every verb works through one mechanism, and
//! none is written twice.
//!
//! Three processes, each with what it needs:
//!
//! ```text
//! client ── porter ── starter ── usher ── the verb
//! ```
//!
//! The **porter** reads what clients send: it has become the daemon's user, reaches no file and may make few
//! system calls. The **starter** keeps its privileges, reads not one byte, and forks an **usher** for each
//! request, which asks the kernel about the client, has the judge's word, and starts the verb as the
//! daemon's user (`run` and `env` keep what they need to start a command as the person who asked).

pub mod authorizer;
pub mod client;
pub mod confirmation;
pub mod daemon;
pub mod frame;
pub mod frontend;
pub mod invocation;
pub mod monitor;
pub mod peer;
pub mod polkit;
pub mod polkit_agent;
pub mod request;
pub mod session_worker;
pub mod system_config;
pub mod user_home;

/// Where the daemon listens.
pub const SOCKET: &str = "/run/agentsecrets/door.sock";
/// Where the starter listens, to the porter alone.
pub const STARTER: &str = "/run/agentsecrets/starter.sock";
/// Where the private homes are, one for each person's uid.
pub const HOMES: &str = "/var/lib/agentsecrets";
