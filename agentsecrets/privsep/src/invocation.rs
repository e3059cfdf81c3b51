//! The invocation that a session worker passes to its command: the person for whom it acts, and the requesting
//! process. It is in a memfd whose number is in an environment variable. The reader must decide whether to
//! believe it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use agentsecrets_sys::{self as sys, process};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The variable that holds the descriptor's number.
pub const INVOCATION_VARIABLE: &str = "AGENTSECRETS_INVOCATION";

/// The context of a command that was requested through the daemon; `P` describes a process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invocation<P> {
    /// The person whose home is used.
    pub uid: u32,
    /// That person's group.
    pub gid: u32,
    /// Whether root requested it, who may do more.
    pub by_root: bool,
    /// Whether a trusted program requested it and nobody was asked.
    pub by_trusted_program: bool,
    /// The process that requested it.
    pub process: P,
    /// The parent of that process.
    pub parent: Option<P>,
    /// The caller's environment, for a command that is started.
    pub environment: Vec<(OsString, OsString)>,
    /// The project file, and its open descriptor.
    pub project_file: Option<(PathBuf, i32)>,
}

impl<P: Serialize + DeserializeOwned> Invocation<P> {
    /// Writes it to a memfd that the next executed program inherits.
    ///
    /// # Errors
    /// If no memory is left.
    pub fn to_memfd(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("invocation", MFdFlags::empty())?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Takes the invocation of this process out of its environment. Call it once, with a single thread; programs
    /// started later inherit none. `None`: there is no such variable.
    ///
    /// # Errors
    /// If the variable or the memfd cannot be read.
    pub fn take_from_environment() -> io::Result<Option<Self>> {
        let Some(number) = std::env::var_os(INVOCATION_VARIABLE) else { return Ok(None) };
        let number = number.to_str().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| io::Error::other("its descriptor is no number"))?;
        process::forget_variable(INVOCATION_VARIABLE)?;
        let mut text = Vec::new();
        let mut file = File::from(sys::inherited(number)?);
        file.rewind()?;
        file.read_to_end(&mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Takes the project file and the user who must own it.
    pub fn take_project_file(&mut self) -> Option<(PathBuf, File, u32)> {
        let (path, number) = self.project_file.take()?;
        Some((path, sys::inherited(number).ok()?.into(), self.uid))
    }
}

/// The value of [`INVOCATION_VARIABLE`] for this memfd.
pub fn variable_value(memfd: &OwnedFd) -> OsString {
    memfd.as_raw_fd().to_string().into()
}
