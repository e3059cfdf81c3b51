//! `cargo xtask tidy`: checks of the architecture that the compiler does not make. Import cycles and the order of
//! folders, files, licences and sources of dependencies. Crate boundaries and `unsafe` are the compiler's.

mod files;
mod modules;

use anstream::{eprintln, println};
use anyhow::{Result, bail};

use crate::workspace::{self, run as run_command};

/// Runs every check, prints every finding, and fails if there is one.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let sources = files::read_all(&root)?;
    let mut findings = files::top_level(&root)?;
    findings.extend(sources.iter().flat_map(files::check));
    findings.extend(modules::check(&root)?);
    println!("{}", files::summary(&sources));
    files::long(&sources).iter().for_each(|hint| println!("hint: {hint}"));
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => println!("{}", modules::summary(&root)?),
        1 => bail!("tidy found one thing"),
        count => bail!("tidy found {count} things"),
    }
    // Advisories need a database from outside, so the public workflow checks them.
    run_command(crate::tools::cargo_deny()?.args([
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}
