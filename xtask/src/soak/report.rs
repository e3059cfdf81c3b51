//! The results of `cargo xtask soak`, on the terminal and in `target/soak.txt`.

use std::fs::{File, OpenOptions};
use std::io::Write;

use anstream::println;
use anyhow::{Context, Result};

use crate::workspace;

/// Prints results, and appends them to a file.
pub(super) struct Report(File);

impl Report {
    /// Opens `target/soak.txt`.
    pub(super) fn open() -> Result<Self> {
        let path = workspace::root().join("target/soak.txt");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self(file.with_context(|| format!("cannot write {}", path.display()))?))
    }

    /// Reports one line.
    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        println!("   {line}");
        writeln!(self.0, "{line}").context("cannot write target/soak.txt")
    }
}
