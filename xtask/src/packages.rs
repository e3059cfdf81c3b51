//! The Python and Node packages that the tests run as agents, below `target`: the versions that `tests/clients`,
//! `tests/mcp`, `tests/credentials`, `tests/kubernetes` and `tests/audit_export` name. Every user can read them, since
//! agents run as nobody. Compose and Docker come from a newer Debian than this machine's.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anstream::println;
use anyhow::{Context, Result};

use crate::workspace::{root, run};

/// The path of the AWS signature test vectors in the source of botocore.
const VECTORS: &str = "tests/unit/auth/aws4_testsuite";

/// The Debian release of the Docker packages, which run on older releases too.
const NEWER: &str = "trixie";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Installs the packages that the lists of the tests name, unless they are installed.
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
        install_if_changed(name, &read(&list)?, |folder| {
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
    install_if_changed("signing-vectors", botocore, |folder| vectors(botocore, folder))?;
    let lock = lists.join("node/package-lock.json");
    install_if_changed("node", &read(&lock)?, |folder| {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(lists.join("node").join(name), folder.join(name))?;
        }
        let mut npm = Command::new("npm");
        run(npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder))
    })?;
    install_if_changed("compose", NEWER, |folder| newer("docker-compose", folder))
}

/// Installs the packages of the long tests.
pub(crate) fn install_more() -> Result<()> {
    install_if_changed("docker", NEWER, |folder| newer("docker.io", folder))
}

/// The Debian archive that apt uses, if it has one.
fn archive() -> Result<Option<String>> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(SITE)", "Created-By: Packages", "Origin: Debian"]);
    let output = targets.output().context("cannot start apt-get")?;
    Ok(String::from_utf8(output.stdout)?.lines().next().map(str::to_owned))
}

/// Unpacks a package of the newer Debian into `folder`, with an apt configuration that does not touch the system.
fn newer(package: &str, folder: &Path) -> Result<()> {
    let site = match archive()? {
        Some(site) => site,
        // apt has no lists yet.
        None => {
            run(Command::new("apt-get").args(["update", "-qq"]).stdout(Stdio::null()))?;
            archive()?.context("apt-get has no Debian archive")?
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
    let package = package.context("apt-get downloaded no package")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
    fs::remove_dir_all(&apt).with_context(|| format!("cannot remove {}", apt.display()))
}

/// Installs the Python packages of the tests under Wine.
pub(crate) fn for_windows() -> Result<()> {
    let list = root().join("tests/windows/python.txt");
    install_if_changed("windows", &read(&list)?, |folder| {
        let mut pip = pip("install");
        pip.args(["--only-binary", ":all:", "--platform", "win_amd64", "--root-user-action", "ignore"]);
        run(pip.arg("--target").arg(folder).arg("--requirement").arg(&list))
    })
}

/// Fills `folder` with the test vectors from the source of `botocore`, a requirement line.
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

/// Lets `install` fill a new folder, and then replaces the old folder with it. Its file `installed` names the
/// `wanted` packages.
fn install_if_changed(name: &str, wanted: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
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
