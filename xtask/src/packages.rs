//! The packages whose clients the tests run as agents: exactly the versions that `tests/clients`, `tests/mcp`,
//! `tests/credentials`, `tests/kubernetes` and `tests/audit_export` name, in a folder below `target`. They are readable to all, since agents
//! run as nobody. Beside them lie Compose and Docker as they are now, from a newer Debian
//! than this machine may be.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anstream::println;
use anyhow::{Context, Result};

use crate::workspace::{root, run};

/// Where the test vectors of AWS's signatures are within botocore's source.
const VECTORS: &str = "tests/unit/auth/aws4_testsuite";

/// The Debian whose packages of Docker the tests use, which start on older ones too.
const NEWER: &str = "trixie";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Installs what the tests' lists of Python and of Node packages say, unless it is there.
pub(crate) fn install() -> Result<()> {
    let lists = root().join("tests/clients");
    let signing = root().join("tests/credentials/python.txt");
    let list = |folder: &str| root().join("tests").join(folder).join("python.txt");
    for (name, list) in [
        ("python", list("clients")),
        ("mcp", list("mcp")),
        ("signing", signing.clone()),
        ("kubernetes", list("kubernetes")),
        ("stream", list("audit_export")),
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
    let botocore = botocore.context("tests/credentials/python.txt does not list botocore")?;
    complete("signing-vectors", botocore, |folder| vectors(botocore, folder))?;
    let lock = lists.join("node/package-lock.json");
    complete("node", &read(&lock)?, |folder| {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(lists.join("node").join(name), folder.join(name))?;
        }
        let mut npm = Command::new("npm");
        run(npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder))
    })?;
    complete("compose", NEWER, |folder| newer("docker-compose", folder))
}

/// Installs what the tests need that are too long for every change.
pub(crate) fn install_more() -> Result<()> {
    complete("docker", NEWER, |folder| newer("docker.io", folder))
}

/// Where this machine gets Debian's packages from, if it knows.
fn archive() -> Result<Option<String>> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(SITE)", "Created-By: Packages", "Origin: Debian"]);
    let output = targets.output().context("cannot start apt-get")?;
    Ok(String::from_utf8(output.stdout)?.lines().next().map(str::to_owned))
}

/// Unpacks a package of the newer Debian into `folder`, by an apt that knows that one alone and touches nothing of
/// the system's.
fn newer(package: &str, folder: &Path) -> Result<()> {
    let site = match archive()? {
        Some(site) => site,
        // It has not looked yet.
        None => {
            run(Command::new("apt-get").args(["update", "-qq"]).stdout(Stdio::null()))?;
            archive()?.context("apt-get knows no archive of Debian")?
        }
    };
    let apt = folder.join("apt");
    for needed in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(apt.join(needed))?;
    }
    let sources = apt.join("sources.list");
    fs::write(&sources, format!("deb [signed-by={KEYRING}] {site} {NEWER} main\n"))?;
    let settings = [
        ("Dir::Etc::SourceList", sources),
        ("Dir::Etc::SourceParts", "/dev/null".into()),
        ("Dir::State::Lists", apt.join("lists")),
        ("Dir::State::Status", "/dev/null".into()),
        ("Dir::Cache", apt.clone()),
        ("APT::Sandbox::User", "root".into()),
        ("Acquire::Languages", "none".into()),
    ];
    for words in [["update", "-qq"], ["download", package]] {
        let mut command = Command::new("apt-get");
        for (name, value) in &settings {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        run(command.args(words).current_dir(&apt).stdout(Stdio::null()))?;
    }
    let package = fs::read_dir(&apt)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = package.context("apt-get brought no package")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
    fs::remove_dir_all(&apt).with_context(|| format!("cannot remove {}", apt.display()))
}

/// Installs what the tests of the Windows program run as an agent there.
pub(crate) fn for_windows() -> Result<()> {
    let list = root().join("tests/windows/python.txt");
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
