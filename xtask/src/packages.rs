//! The packages whose clients the tests run as agents: exactly the versions that `tests/clients` and `tests/signing` name,
//! in a folder below `target`. They are readable to all, since agents run as nobody.

use std::fs;
use std::path::Path;
use std::process::Command;

use anstream::println;
use anyhow::{Context, Result};

use crate::workspace::{root, run};

/// Installs what the tests' lists of Python and of Node packages say, unless it is there.
pub(crate) fn install() -> Result<()> {
    let lists = root().join("tests/clients");
    for (name, list) in
        [("python", lists.join("python.txt")), ("signing", root().join("tests/signing/python.txt"))]
    {
        complete(name, &list, |folder| {
            let mut pip = Command::new("/usr/bin/python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"])
                .args(["--root-user-action", "ignore", "--disable-pip-version-check"])
                .arg("--target")
                .arg(folder)
                .arg("--requirement")
                .arg(&list);
            run(&mut pip)
        })?;
    }
    complete("node", &lists.join("node/package-lock.json"), |folder| {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(lists.join("node").join(name), folder.join(name))?;
        }
        let mut npm = Command::new("npm");
        run(npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder))
    })
}

/// Lets `install` fill a new folder, which takes the place of the one before only when it is whole.
/// Which list it was made from stands in its file `installed`, for us and for the tests.
fn complete(name: &str, list: &Path, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let wanted = fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let all = root().join("target/test-clients");
    let (folder, new) = (all.join(name), all.join(format!("{name}.new")));
    if fs::read_to_string(folder.join("installed")).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("   installing the {name} packages that the tests run");
    for old in [&folder, &new] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    install(&new)?;
    fs::write(new.join("installed"), wanted)?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&new))?;
    fs::rename(&new, &folder).with_context(|| format!("cannot make {}", folder.display()))
}
