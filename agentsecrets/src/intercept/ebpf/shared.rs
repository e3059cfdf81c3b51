//! Programs that are loaded once and hook many cgroups, all of which lead to the same two ports, each in a
//! network namespace of its own. They and their tables are pinned, so that who comes after us hooks more
//! cgroups with the same ones; what each cgroup costs is its links.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::types::hex::hex;

use super::error::EbpfError;
use super::flows::FlowMap;
use super::link;
use super::load::{
    MAPS, PROGRAMS, PartialAttachment, Ports, Settings, absent_is_fine, allow_inbound_of, detach, fd, hook,
    level_below, load, pin_maps,
};
use super::object::OBJECT;
use crate::intercept::ebpf::pins::hold;

/// The folder of the programs, in that of all pins.
const PROGRAMS_FOLDER: &str = "programs";
/// The folder of the hooked cgroups.
const HOOKED_FOLDER: &str = "hooked";
/// Says of a cgroup that it stays hooked until it is gone.
const MARK: &str = "kept";

/// One set of programs, in force or ready to be.
pub struct SharedPrograms {
    folder: PathBuf,
    hooked: PathBuf,
    /// The digest of the programs and their parameters.
    kind: String,
    programs: Vec<OwnedFd>,
}

/// The hooks of one cgroup.
#[derive(Debug)]
pub struct Hooks {
    folder: PathBuf,
    /// The cgroup's id.
    pub id: u64,
}

impl SharedPrograms {
    /// Takes over the programs that an earlier process left in `pins`, or loads them. They redirect to
    /// `ports`, hook cgroups one or two levels below `above`, and report processes in the pid namespace
    /// `processes`.
    ///
    /// # Errors
    /// If something is missing or refused.
    pub fn open(
        pins: &Path,
        above: &Path,
        ports: Ports,
        processes: Option<(u64, u64)>,
    ) -> Result<Self, EbpfError> {
        let level = level_below(above);
        if level == 0 {
            return Err(EbpfError::NoCgroup2 { path: above.to_path_buf() });
        }
        let settings = Settings { ports, level: 0, hooked: level, beside: false, processes };
        let description = format!("{level} {processes:?} {ports:?}");
        let digest = digest(&SHA256, &[OBJECT, description.as_bytes()].concat());
        let kind = hex(digest.as_ref().get(..8).unwrap_or_default());
        let (folder, hooked) = (pins.join(PROGRAMS_FOLDER).join(&kind), pins.join(HOOKED_FOLDER));
        make(&hooked)?;
        let programs = match pinned(&folder) {
            Some(programs) => programs,
            None => {
                // Half of a set is none.
                detach(&folder)?;
                fresh(settings, &folder)?
            }
        };
        Ok(Self { folder, hooked, kind, programs })
    }

    /// The folder of the pinned tables.
    pub fn pins(&self) -> &Path {
        &self.folder
    }

    /// The records of all connections.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn flows(&self) -> Result<FlowMap, EbpfError> {
        FlowMap::open(&self.folder)
    }

    /// Hooks `cgroup`, known by `name`, unless these programs do already. Hooks of others are removed once
    /// these are in force.
    ///
    /// # Errors
    /// If the kernel refuses. The earlier hooks stay in force then.
    pub fn hook(&self, name: &str, cgroup: &Path) -> Result<Hooks, EbpfError> {
        let folder = self.hooked.join(name);
        let pins = folder.join(&self.kind);
        // What cannot be looked at may be in force, and is left alone.
        if !hold(&pins, cgroup).map_err(|error| EbpfError::call("looking at hooks", error))? {
            make(&folder)?;
            // Of a cgroup that is gone, by the same name.
            detach(&pins)?;
            let unfinished = PartialAttachment::make(&pins)?;
            let programs: Vec<_> = self.programs.iter().map(AsFd::as_fd).collect();
            hook(cgroup, &pins, &programs)?;
            let _attachment = unfinished.finish();
        }
        for other in entries(&folder).filter(|other| *other != pins && !other.ends_with(MARK)) {
            detach(&other)?;
        }
        let id = fs::metadata(cgroup).map_err(|error| EbpfError::call("looking at a cgroup", error))?.ino();
        Ok(Hooks { folder, id })
    }

    /// Removes the hooks of the cgroup that is known by `name`, if there are any.
    ///
    /// # Errors
    /// When a pin cannot be removed. The drop of everything is then still in force.
    pub fn unhook(&self, name: &str) -> Result<(), EbpfError> {
        let folder = self.hooked.join(name);
        for pins in entries(&folder) {
            detach(&pins)?;
        }
        absent_is_fine(&folder, fs::remove_dir(&folder))
    }

    /// Every name by which a cgroup is hooked, and whether it stays so.
    pub fn names(&self) -> Vec<(String, bool)> {
        let name = |folder: PathBuf| {
            let kept = folder.join(MARK).is_dir();
            folder.file_name().and_then(|name| name.to_str()).map(|name| (name.to_owned(), kept))
        };
        entries(&self.hooked).filter_map(name).collect()
    }

    /// Lets answers leave from these ports of a hooked cgroup, and from no others.
    ///
    /// # Errors
    /// When the table is full.
    pub fn allow_inbound(&self, cgroup: u64, ports: &[u16]) -> Result<(), EbpfError> {
        allow_inbound_of(&self.folder, cgroup, ports)
    }

    /// Removes programs of other kinds, which hook nothing any longer.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn collect(&self) -> Result<(), EbpfError> {
        let Some(all) = self.folder.parent() else { return Ok(()) };
        entries(all).filter(|other| *other != self.folder).try_for_each(|other| detach(&other))
    }
}

impl Hooks {
    /// Says that the cgroup stays hooked until it is gone, whoever comes after us.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn keep(&self) -> Result<(), EbpfError> {
        make(&self.folder.join(MARK))
    }
}

/// The programs that are pinned in `folder`, if none is missing and no table is.
fn pinned(folder: &Path) -> Option<Vec<OwnedFd>> {
    let tables = MAPS.iter().all(|name| folder.join(name).exists());
    let programs = PROGRAMS.iter().map(|(name, _)| link::pinned(&folder.join(name)).ok());
    programs.collect::<Option<Vec<_>>>().filter(|_| tables)
}

fn fresh(settings: Settings, folder: &Path) -> Result<Vec<OwnedFd>, EbpfError> {
    let ebpf = load(settings)?;
    let unfinished = PartialAttachment::make(folder)?;
    pin_maps(&ebpf, folder)?;
    let mut programs = Vec::with_capacity(PROGRAMS.len());
    for (name, _) in PROGRAMS {
        let (program, path) = (fd(&ebpf, name)?, folder.join(name));
        link::pin(program, &path).map_err(|source| EbpfError::Pin { path, source })?;
        programs
            .push(program.try_clone_to_owned().map_err(|error| EbpfError::call("keeping a program", error))?);
    }
    let _attachment = unfinished.finish();
    Ok(programs)
}

fn make(folder: &Path) -> Result<(), EbpfError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| EbpfError::Pin { path: folder.to_path_buf(), source })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}
