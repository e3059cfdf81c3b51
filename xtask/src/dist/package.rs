//! The Debian package and the tarball: the program with its licence, its changes and what is inside it. The package
//! has no scripts: it starts nothing, and leaves nothing when it is purged.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Release;
use super::archive::{Tree, gzip};
use crate::workspace::{root, run};

/// The package, by Debian's own tool.
pub(super) fn debian(release: &Release, out: &Path) -> Result<Vec<u8>> {
    let staged = tempfile::tempdir_in(out)?;
    let changes = gzip(&read("agentsecrets/CHANGELOG.md")?)?;
    let doc = "usr/share/doc/agentsecrets";
    let files: [(String, Vec<u8>, u32); 5] = [
        ("usr/bin/agentsecrets".into(), release.program.clone(), 0o755),
        (format!("{doc}/copyright"), copyright()?, 0o644),
        (format!("{doc}/changelog.gz"), changes, 0o644),
        (format!("{doc}/THIRD-PARTY.md"), release.bill.notices().into_bytes(), 0o644),
        ("DEBIAN/control".into(), control(release, release.program.len()).into_bytes(), 0o644),
    ];
    for (path, bytes, mode) in files {
        let path = staged.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(staged.path()))?;
        fs::write(&path, bytes)?;
        set_mode(&path, mode)?;
    }
    for folder in ["", "DEBIAN", "usr", "usr/bin", "usr/share", "usr/share/doc", doc] {
        set_mode(&staged.path().join(folder), 0o755)?;
    }
    let package = staged.path().with_extension("deb");
    let mut command = Command::new("dpkg-deb");
    command
        .args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"])
        .arg(staged.path())
        .arg(&package);
    run(command.env("SOURCE_DATE_EPOCH", release.epoch.to_string()).stdout(std::process::Stdio::null()))?;
    let bytes = fs::read(&package)?;
    fs::remove_file(&package)?;
    Ok(bytes)
}

fn control(release: &Release, size: usize) -> String {
    format!(
        "Package: agentsecrets\nVersion: {}\nArchitecture: {}\nMaintainer: The AgentSecrets authors <maintainers@agentsecrets.invalid>\n\
         Installed-Size: {}\nSection: admin\nPriority: optional\nRecommends: ca-certificates\n\
         Description: Credentials for AI agents that never hold them\n \
         An agent names a credential; the value is put in on the wire where a policy allows it,\n \
         and taken out of the answer again. The kernel leads the agent's traffic there.\n",
        release.version,
        release.arch,
        size.div_ceil(1024),
    )
}

fn copyright() -> Result<Vec<u8>> {
    let licence = String::from_utf8(read("LICENSE")?)?;
    let folded =
        licence.lines().map(|line| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") });
    let folded: String = folded.collect();
    let head = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
        Upstream-Name: agentsecrets\nComment: what is linked in is under its own licences, in THIRD-PARTY.md\n\n\
        Files: *\nCopyright: The AgentSecrets authors\nLicense: Expat\n";
    Ok(format!("{head}{folded}").into_bytes())
}

/// The tarball, with the files to deploy it by.
pub(super) fn tarball(release: &Release) -> Result<Vec<u8>> {
    let top = format!("agentsecrets-{}-{}", release.version, release.triple);
    let mut tree = Tree::default();
    tree.file(&format!("{top}/agentsecrets"), release.program.clone(), 0o755);
    tree.file(&format!("{top}/THIRD-PARTY.md"), release.bill.notices(), 0o644);
    for (name, path) in [
        ("LICENSE", "LICENSE"),
        ("README.md", "README.md"),
        ("CHANGELOG.md", "agentsecrets/CHANGELOG.md"),
        ("deploy/compose.yaml", "deploy/compose.yaml"),
        ("deploy/agentsecrets/config.yaml", "deploy/agentsecrets/config.yaml"),
        ("deploy/agentsecrets/policy.yaml", "deploy/agentsecrets/policy.yaml"),
    ] {
        tree.file(&format!("{top}/{name}"), read(path)?, 0o644);
    }
    gzip(&tree.tar(release.epoch)?)
}

fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(root().join(path)).with_context(|| format!("cannot read {path}"))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
