//! The facts of a caller's process for records and for the program itself.

use super::{Caller, Process};
pub use crate::types::process_facts::ProcessFacts;

impl From<&Caller> for ProcessFacts {
    fn from(caller: &Caller) -> Self {
        let ids = caller.attributes.spiffe.iter().flat_map(|known| known.ids());
        Self { spiffe: ids.map(|id| id.to_string()).collect(), ..Self::from(&*caller.process) }
    }
}

impl From<&Process> for ProcessFacts {
    fn from(process: &Process) -> Self {
        let container = process.container();
        Self {
            pid: process.pid,
            start_time: process.start_time,
            exe: process.exe.to_string_lossy().into_owned(),
            sha256: process.sha256.clone(),
            uid: process.uid,
            cgroup: process.cgroup.clone(),
            container: container.map(|container| container.id.to_owned()),
            image: process.image.as_ref().and_then(|image| image.name.as_ref()).map(ToString::to_string),
            image_id: process.image.as_ref().map(|image| image.id.clone()),
            pod: container.and_then(|container| container.pod()),
            spiffe: Vec::new(),
        }
    }
}
