//! `cargo xtask tidy`: the architecture as a test. What DESIGN promises of the house's shape (layers,
//! file sizes, where `unsafe` may stand, whose code we ship) is checked here and nowhere else.

mod files;
mod layers;
mod licences;
mod source;

use anstream::{eprintln, println};
use anyhow::{Result, bail};

use crate::workspace;

/// Checks everything, prints every finding, and fails if there is one.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let sources = source::read_all(&root)?;
    let mut findings = files::top_level(&root)?;
    for source in &sources {
        findings.extend(files::check(source));
        findings.extend(layers::check(source));
    }
    findings.extend(licences::check()?);
    println!("{}", files::sizes(&sources));
    if findings.is_empty() {
        println!("layers, unsafe code, module docs and licences are as designed");
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    bail!(
        "tidy found {}",
        if findings.len() == 1 { "one thing".into() } else { format!("{} things", findings.len()) }
    )
}
