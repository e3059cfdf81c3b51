//! Agents in containers: the services of `deploy/compose.yaml`, started by a real container runtime with exactly
//! the mounts, users, capabilities, namespaces and system calls that the file gives them.

pub(crate) mod bundle;
mod capabilities;
mod compose;
mod dist;
mod docker;
mod engine;
mod files;
pub(crate) mod held;
mod image;
pub(crate) mod lifecycle;
mod rotation;
mod several;
pub(crate) mod site;
mod spending;
pub(crate) mod trying;

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use engine::Engine;

/// A file of the workspace.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// A file that is delivered.
pub(crate) fn deploy(name: &str) -> PathBuf {
    file("deploy").join(name)
}

/// Compose as Docker has it now, which `cargo xtask test` brings.
pub(crate) fn compose() -> Command {
    let client = file("target/test-clients/compose/usr/libexec/docker/cli-plugins/docker-compose");
    crate::support::process::command(client.to_str().unwrap())
}
