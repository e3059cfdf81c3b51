//! Trusted programs that run as services: the daemon gives them secrets without a person's confirmation.

use std::sync::Arc;

use crate::authz::trust::Trust;
use crate::authz::trust::pins::Pin;
use crate::identity::{Caller, Process};
use crate::sys;
use crate::sys::home::Home;
use crate::types::name::SecretName;

/// Whether `process` is a trusted program that runs as a service, with a pin for every one of `secrets`. Any
/// program of the person's user can `exec` a trusted one after it connected, or load code into it. The pin
/// must therefore bind the program to a cgroup into which only root moves processes.
pub(super) fn is_service(home: &Home, process: &Process, secrets: &[SecretName]) -> bool {
    if !is_root_controlled_cgroup(&process.cgroup) {
        return false;
    }
    // Unreadable pins trust nothing.
    let Ok(trust) = Trust::open(&home.trust(), true, None) else { return false };
    let caller = Caller {
        process: Arc::new(process.clone()),
        agent: None,
        session: "".into(),
        is_ours: false,
        attributes: Default::default(),
    };
    let verdict = trust.verdict(&caller);
    let holds = |pin: &Pin| pin.cgroup.is_some() && pin.interpreter.is_none() && pin.script.is_none();
    let pins: Vec<_> = verdict.holding().iter().filter(|pin| holds(pin)).collect();
    !pins.is_empty() && secrets.iter().all(|secret| pins.iter().any(|pin| pin.secrets.contains(secret)))
}

/// Whether only root moves processes into the cgroup at `path`. The root cgroup does not count.
fn is_root_controlled_cgroup(path: &str) -> bool {
    let Ok(mounts) = crate::launch::mounts::mount_table() else { return false };
    let root = mounts.into_iter().find(|mount| mount.kind == "cgroup2" && mount.root == "/");
    let Some(root) = root.filter(|_| path.len() > 1) else { return false };
    let file = root.path.join(path.trim_start_matches('/')).join("cgroup.procs");
    std::fs::metadata(file).is_ok_and(|file| sys::is_roots_alone(&file))
}
