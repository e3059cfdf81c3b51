//! The packages whose clients the tests run as agents: exactly the versions that `tests/clients`, `tests/mcp`,
//! `tests/signing` and `tests/kubernetes` name, in a folder below `target`. They are readable to all, since agents
//! run as nobody.

use std::fs;
use std::path::Path;
use std::process::Command;

use anstream::println;
use anyhow::{Context, Result};

use crate::workspace::{root, run};

/// Where the test vectors of AWS's signatures are within botocore's source.
const VECTORS: &str = "tests/unit/auth/aws4_testsuite";

/// Installs what the tests' lists of Python and of Node packages say, unless it is there.
pub(crate) fn install() -> Result<()> {
    let lists = root().join("tests/clients");
    let signing = root().join("tests/signing/python.txt");
    let list = |folder: &str| root().join("tests").join(folder).join("python.txt");
    for (name, list) in [
        ("python", list("clients")),
        ("mcp", list("mcp")),
        ("signing", signing.clone()),
        ("kubernetes", list("kubernetes")),
    ] {
        complete(name, &read(&list)?, |folder| {
            let mut pip = pip("install");
            pip.args(["--only-binary", ":all:", "--root-user-action", "ignore"])
                .arg("--target")
                .arg(folder)
                .arg("--requirement")
                .arg(&list);
            run(&mut pip)
        })?;
    }
    let signing = read(&signing)?;
    let botocore = signing.lines().find(|line| line.starts_with("botocore=="));
    let botocore = botocore.context("tests/signing/python.txt does not list botocore")?;
    complete("signing-vectors", botocore, |folder| vectors(botocore, folder))?;
    let lock = lists.join("node/package-lock.json");
    complete("node", &read(&lock)?, |folder| {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(lists.join("node").join(name), folder.join(name))?;
        }
        let mut npm = Command::new("npm");
        run(npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder))
    })
}

/// Installs what the tests of the Windows program run as an agent there.
pub(crate) fn for_windows() -> Result<()> {
    let list = root().join("tests/systems/python.txt");
    complete("windows", &read(&list)?, |folder| {
        let mut pip = pip("install");
        pip.args(["--only-binary", ":all:", "--platform", "win_amd64", "--root-user-action", "ignore"]);
        run(pip.arg("--target").arg(folder).arg("--requirement").arg(&list))
    })
}

/// Fills `folder` with the test vectors, which only the source of `botocore`, a requirement, holds.
fn vectors(botocore: &str, folder: &Path) -> Result<()> {
    run(pip("download").args(["--no-binary", ":all:", botocore, "--dest"]).arg(folder))?;
    let name = botocore.replace("==", "-");
    let archive = folder.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--gzip", "--no-same-owner", "--strip-components", "4", "--file"]).arg(&archive);
    run(tar.arg("--directory").arg(folder).arg(format!("{name}/{VECTORS}")))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}

fn pip(what: &str) -> Command {
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", what, "--quiet", "--no-deps", "--disable-pip-version-check"]);
    pip
}

fn read(list: &Path) -> Result<String> {
    fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))
}

/// Lets `install` fill a new folder, which takes the place of the one before only when it is whole.
/// Which packages are `wanted` in it stands in its file `installed`, for us and for the tests.
fn complete(name: &str, wanted: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
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
