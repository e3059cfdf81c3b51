//! What the usher tells the verb that it starts: for whom it acts, and who asked. It stands in memory that
//! the usher made, under a descriptor that a variable names; only a process that runs as root or as the
//! daemon's user believes it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::identity::Process;
use crate::privsep::system_config::System;
use crate::sys::{self, process};
use crate::types::failure::{Exit, Failure};

/// The variable that names the descriptor.
pub const VARIABLE: &str = "AGENTSECRETS_DOOR";

/// The usher's word.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The person whose home it is.
    pub uid: u32,
    /// That person's group.
    pub gid: u32,
    /// Whether root asked, who may do more.
    pub by_root: bool,
    /// Whether a trusted program asked, and nobody was there.
    pub by_trust: bool,
    /// The process that asked.
    pub process: Process,
    /// The process that started that one.
    pub started_by: Option<Process>,
    /// The caller's environment, for a command that is started.
    pub environment: Vec<(OsString, OsString)>,
    /// The project file, and the descriptor that it is open under.
    pub project_file: Option<(PathBuf, i32)>,
}

impl Ticket {
    /// Writes it down; the descriptor is inherited by the program that is started.
    pub fn write(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("ticket", MFdFlags::empty())?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// The ticket of this process, if it was started by an usher. It can be taken once, with a single thread;
    /// a program that is started next has none.
    ///
    /// # Errors
    /// When there is one that cannot be read: what would act for somebody must not act for itself instead.
    pub fn take() -> Result<Option<Self>, Failure> {
        let Some(number) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let user = nix::unistd::geteuid();
        let believed = System::find()?.is_some_and(|system| user.is_root() || user == system.uid);
        if !believed {
            return Ok(None);
        }
        let read = || -> io::Result<Self> {
            let number = number.to_str().and_then(|number| number.parse().ok());
            let number = number.ok_or_else(|| io::Error::other("its descriptor is no number"))?;
            process::forget_variable(VARIABLE)?;
            let mut text = Vec::new();
            let mut file = File::from(sys::inherited(number)?);
            file.rewind()?;
            file.read_to_end(&mut text)?;
            Ok(serde_json::from_slice(&text)?)
        };
        let failed =
            |error| Failure::new(Exit::Failure, format!("the door's ticket cannot be read: {error}"));
        read().map(Some).map_err(failed)
    }

    /// The project file and whose it must be; it can be taken once.
    pub fn project_file(&mut self) -> Option<(PathBuf, File, u32)> {
        let (path, number) = self.project_file.take()?;
        Some((path, sys::inherited(number).ok()?.into(), self.uid))
    }

    /// The number that the variable holds for the descriptor of `write`.
    pub fn number(descriptor: &OwnedFd) -> OsString {
        descriptor.as_raw_fd().to_string().into()
    }
}
