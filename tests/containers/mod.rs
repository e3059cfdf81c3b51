//! Agents in containers: the services of `deploy/compose.yaml`, started by a real runtime with exactly the
//! mounts, users, capabilities, namespaces and system calls of that file.

pub(crate) mod bundle;
mod capabilities;
mod compose;
mod deploy_files;
mod dist;
mod docker;
pub(crate) mod egress;
mod engine;
mod image_identity;
mod isolation;
pub(crate) mod lifecycle;
mod requests;
mod secret_rotation;
pub(crate) mod testbed;

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use engine::Engine;

/// A file of the workspace.
pub(crate) fn workspace_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// A file in `deploy/`.
pub(crate) fn deploy_file(name: &str) -> PathBuf {
    workspace_file("deploy").join(name)
}

/// Docker's current Compose, which `cargo xtask test` installs.
pub(crate) fn compose() -> Command {
    let client = workspace_file("target/test-clients/compose/usr/libexec/docker/cli-plugins/docker-compose");
    crate::support::process::command(client.to_str().unwrap())
}
