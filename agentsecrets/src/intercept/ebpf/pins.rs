//! Pins that outlive us, found again. What an earlier process of ours attached stays in force and is taken
//! up as it is, if its programs are these very ones and every hook still holds; else new ones are attached
//! before the old are removed, so that there is no moment without.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::types::hex::hex;

use super::error::EbpfError;
use super::link;
use super::load::{EGRESS, PROGRAMS, Ports, SecondAttachment, attach_second, detach, let_pass, level_below};
use super::object::OBJECT;

/// The hooks of one cgroup, over the lives of the processes that serve it. Its folder holds one folder of
/// pins for each time that programs were attached.
#[derive(Debug)]
pub struct PinFolder {
    folder: PathBuf,
    cgroup: PathBuf,
    /// The digest of the programs and their parameters, without their ports.
    kind: String,
    beside: SecondAttachment,
}

/// Hooks that are in force and can be served.
#[derive(Debug)]
pub struct PinnedHooks {
    /// The folder of their pins.
    pub pins: PathBuf,
    /// The doors that they lead to.
    pub ports: Ports,
}

impl PinFolder {
    /// Those of `cgroup`, whose pins are in `folder`, where we are `beside` the agents.
    pub fn new(folder: PathBuf, cgroup: PathBuf, beside: SecondAttachment) -> Self {
        let description = format!("{} {:?}", level_below(&cgroup), beside.processes);
        let digest = digest(&SHA256, &[OBJECT, description.as_bytes()].concat());
        let kind = hex(digest.as_ref().get(..8).unwrap_or_default());
        Self { folder, cgroup, kind, beside }
    }

    /// Hooks of an earlier process that this one can serve, if there are any.
    pub fn find(&self) -> Option<PinnedHooks> {
        let kept = self.all().into_iter().filter_map(|pins| {
            let ports = self.ports(&pins)?;
            Some(PinnedHooks { pins, ports })
        });
        kept.rev().find(|kept| self.holds(&kept.pins))
    }

    /// Takes up what was found, for our cgroup as it is now.
    ///
    /// # Errors
    /// When the pins cannot be used.
    pub fn take_up(&self, kept: &PinnedHooks) -> Result<(), EbpfError> {
        let_pass(&kept.pins, self.beside.ours)?;
        self.remove_all_but(&kept.pins)
    }

    /// Attaches new programs that lead to `ports`, and then removes what was there before.
    ///
    /// # Errors
    /// As for [`attach_beside`]. What was there before is still in force then.
    pub fn renew(&self, ports: Ports) -> Result<PinnedHooks, EbpfError> {
        let next = self.all().iter().filter_map(|pins| number(pins)).max().map_or(0, |last| last + 1);
        let pins = self.folder.join(format!("{next}-{}-{}-{}", self.kind, ports.listener, ports.dns));
        let _attachment = attach_second(&self.cgroup, &pins, ports, &[], Some(self.beside))?;
        self.remove_all_but(&pins)?;
        Ok(PinnedHooks { pins, ports })
    }

    fn remove_all_but(&self, pins: &Path) -> Result<(), EbpfError> {
        self.all().iter().filter(|other| *other != pins).try_for_each(|other| detach(other))
    }

    /// Every folder of pins, in the order in which they were made.
    fn all(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        let mut all: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        all.sort_by_key(|pins| number(pins));
        all
    }

    /// The ports of programs that are of this kind.
    fn ports(&self, pins: &Path) -> Option<Ports> {
        let mut parts = pins.file_name()?.to_str()?.split('-').skip(1);
        let same = parts.next()? == self.kind;
        let (listener, dns) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        same.then_some(Ports { listener, dns })
    }

    fn holds(&self, pins: &Path) -> bool {
        hold(pins, &self.cgroup).unwrap_or(false)
    }
}

/// Whether every hook is there, and attached to the cgroup as it is now: one that was removed and made
/// again has another id.
pub(super) fn hold(pins: &Path, cgroup: &Path) -> io::Result<bool> {
    let all = || -> io::Result<bool> {
        let cgroup = cgroup.metadata()?.ino();
        for (name, _) in PROGRAMS {
            if link::cgroup(&pins.join(name))? != cgroup {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match all() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        answer => answer,
    }
}

/// Removes the pins below `all` whose cgroup is gone for good: they hold nothing, and nobody will take them
/// up under another cgroup's name. What cannot be removed is tried again the next time.
pub fn collect(all: &Path) {
    let folders = |of: &Path| fs::read_dir(of).into_iter().flatten().flatten().map(|entry| entry.path());
    for service in folders(all) {
        for pins in folders(&service).filter(|pins| link::cgroup(&pins.join(EGRESS)).is_ok_and(|id| id == 0))
        {
            let _ = detach(&pins);
        }
        // It goes if it is empty; who has just made it makes it again.
        let _ = fs::remove_dir(service);
    }
}

/// The position in the order of attaching.
fn number(pins: &Path) -> Option<u64> {
    pins.file_name()?.to_str()?.split('-').next()?.parse().ok()
}
