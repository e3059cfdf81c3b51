//! Mounts the root certificates where clients look without a variable: the system's own bundles, Java's
//! stores, and bundles that libraries carry. Only the agent sees them; the host's files stay as they are.
//!
//! `JAVA_TOOL_OPTIONS` could point Java to a store, but then every Java prints a line to standard error,
//! which programs that read it do not expect.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::spec::{BUNDLE, JAVA, View};
use crate::launch::mounts;
use crate::tls::bundle::SYSTEM_BUNDLE_PATHS;

/// Java's own stores, relative to its home, in the order in which it reads them.
const IN_JAVA: &[&str] = &[
    "lib/security/jssecacerts",
    "jre/lib/security/jssecacerts",
    "lib/security/cacerts",
    "jre/lib/security/cacerts",
];

/// Stores that systems keep for all their Javas.
const JAVAS: &[&str] = &["/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts"];

/// Bundles that Python packages carry and prefer to whatever the environment says.
const IN_PYTHON: &[&str] = &["stripe/data/ca-certificates.crt"];

pub(super) fn show(view: &View<'_>) -> io::Result<()> {
    let carried = carried(&view.user.home, view.folder);
    for (what, places) in [(BUNDLE, system()), (JAVA, javas(&view.user.home)), (BUNDLE, carried)] {
        for place in places {
            mounts::bind_mount(Path::new(what), &place)?;
        }
    }
    Ok(())
}

/// The system's bundles.
pub(crate) fn system() -> BTreeSet<PathBuf> {
    files(SYSTEM_BUNDLE_PATHS.iter().map(PathBuf::from))
}

/// The trust stores of every Java that the caller's environment, `home` or the system's folders lead to.
pub(crate) fn javas(home: &Path) -> BTreeSet<PathBuf> {
    let mut homes: Vec<PathBuf> = std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    homes.extend(programs("java").iter().filter_map(|java| prefix(&java.canonicalize().ok()?)));
    for folder in [Path::new("/usr/lib/jvm"), &home.join(".sdkman/candidates/java")] {
        homes.extend(inside(folder));
    }
    let stores = homes.iter().flat_map(|home| IN_JAVA.iter().map(|store| home.join(store)));
    files(stores.chain(JAVAS.iter().map(PathBuf::from)))
}

/// Bundles that Python packages carry: of the caller's Pythons, of `home`, and of the project in `folder`.
pub(crate) fn carried(home: &Path, folder: &Path) -> BTreeSet<PathBuf> {
    let mut prefixes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .iter()
        .filter_map(|name| std::env::var_os(name).map(PathBuf::from))
        .collect();
    prefixes.extend([PathBuf::from("/usr"), PathBuf::from("/usr/local"), home.join(".local")]);
    for project in folder.ancestors() {
        prefixes.extend([project.join(".venv"), project.join("venv")]);
    }
    // A virtual environment's Python is a link, which stands in its prefix and leads out of it.
    for python in programs("python3").into_iter().chain(programs("python")) {
        prefixes.extend(prefix(&python));
        prefixes.extend(python.canonicalize().ok().as_deref().and_then(prefix));
    }
    prefixes.extend(inside(&home.join(".pyenv/versions")));
    let python =
        |name: &PathBuf| name.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python3"));
    let libraries = prefixes.iter().flat_map(|prefix| inside(&prefix.join("lib"))).filter(python);
    let mut packages: Vec<PathBuf> =
        libraries.flat_map(|lib| [lib.join("site-packages"), lib.join("dist-packages")]).collect();
    if let Some(paths) = std::env::var_os("PYTHONPATH") {
        packages.extend(std::env::split_paths(&paths));
    }
    let bundles = packages.iter().flat_map(|folder| IN_PYTHON.iter().map(|bundle| folder.join(bundle)));
    // A link in a folder that an agent may write could lead anywhere.
    let plain = bundles.filter(|path| fs::symlink_metadata(path).is_ok_and(|file| file.is_file()));
    files(plain).into_iter().filter(|path| IN_PYTHON.iter().any(|bundle| path.ends_with(bundle))).collect()
}

/// Those of `paths` that are files, without links, each once.
fn files(paths: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    paths.filter_map(|path| path.canonicalize().ok()).filter(|path| path.is_file()).collect()
}

/// Every program of this name on the caller's `PATH`.
fn programs(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).filter(|path| path.is_file()).collect()
}

/// `/usr` of `/usr/bin/python3`.
fn prefix(program: &Path) -> Option<PathBuf> {
    program.parent()?.parent().map(Path::to_path_buf)
}

/// The entries of `folder`; none if it cannot be read.
fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_environment_bundle_is_found() {
        let project = tempfile::tempdir().unwrap();
        let packages = project.path().join(".venv/lib/python3.11/site-packages");
        let bundle = packages.join(IN_PYTHON[0]);
        fs::create_dir_all(bundle.parent().unwrap()).unwrap();
        fs::create_dir_all(project.path().join("src")).unwrap();
        fs::write(&bundle, "x").unwrap();
        let found = carried(Path::new("/nonexistent"), &project.path().join("src"));
        assert!(found.contains(&bundle.canonicalize().unwrap()), "{found:?}");
    }

    #[test]
    fn linked_bundle_is_not_followed() {
        let project = tempfile::tempdir().unwrap();
        let elsewhere = project.path().join("elsewhere");
        fs::write(&elsewhere, "x").unwrap();
        let bundle = project.path().join("venv/lib/python3.11/site-packages").join(IN_PYTHON[0]);
        fs::create_dir_all(bundle.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &bundle).unwrap();
        let found = carried(Path::new("/nonexistent"), project.path());
        assert!(!found.contains(&elsewhere.canonicalize().unwrap()), "{found:?}");
    }
}
