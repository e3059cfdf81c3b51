//! The Debian package, the RPM package and the tarball. `cargo deb` and `cargo generate-rpm` make the packages from the
//! metadata in `agentsecrets/Cargo.toml`. A package has no scripts: it starts nothing, and leaves nothing behind.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::archive::{Tree, gzip};
use super::release::Release;
use crate::tools;
use crate::workspace::{root, run};

/// Calls the packagers for one release.
pub(super) struct Packager<'a> {
    release: &'a Release,
    source: &'a Path,
    out: &'a Path,
}

impl<'a> Packager<'a> {
    /// Puts all files of the packages into the folder below `out` where the packagers look for built files, with the
    /// timestamp of the release: `cargo generate-rpm` keeps an older one.
    pub(super) fn new(release: &'a Release, source: &'a Path, out: &'a Path) -> Result<Self> {
        let built = out.join(release.arch.triple()).join("release");
        fs::create_dir_all(&built)?;
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(release.epoch);
        for (name, bytes, mode) in [
            ("agentsecrets", release.program.clone(), 0o755),
            ("THIRD-PARTY.md", release.notices.text().into_bytes(), 0o644),
            ("CHANGELOG.md", read("agentsecrets/CHANGELOG.md")?, 0o644),
            ("LICENSE", read("LICENSE")?, 0o644),
        ] {
            write(&built.join(name), &bytes, mode, modified)?;
        }
        Ok(Self { release, source, out })
    }

    /// The Debian package.
    pub(super) fn debian(&self) -> Result<Vec<u8>> {
        let mut command = tools::cargo_deb()?;
        command.args(["--no-build", "--no-strip", "--quiet", "--manifest-path"]);
        command.arg(self.source.join("agentsecrets/Cargo.toml"));
        self.finish(command, "deb")
    }

    /// The RPM package.
    pub(super) fn rpm(&self) -> Result<Vec<u8>> {
        let mut command = tools::cargo_generate_rpm()?;
        command.args(["--auto-req", "disabled", "--package", "agentsecrets"]);
        command.args(["--source-date", &self.release.epoch.to_string(), "--target-dir"]).arg(self.out);
        self.finish(command, "rpm")
    }

    fn finish(&self, mut command: Command, kind: &str) -> Result<Vec<u8>> {
        let package = self.out.join(format!("agentsecrets.{kind}"));
        command
            .args(["--target", self.release.arch.triple(), "--output"])
            .arg(&package)
            .current_dir(self.source)
            .env("CARGO_TARGET_DIR", self.out)
            .env("SOURCE_DATE_EPOCH", self.release.epoch.to_string())
            .stdout(Stdio::null());
        run(&mut command)?;
        let bytes = fs::read(&package).with_context(|| format!("cannot read {}", package.display()))?;
        fs::remove_file(&package)?;
        Ok(bytes)
    }
}

/// The tarball: the program, its documents and the files for a deployment.
pub(super) fn tarball(release: &Release) -> Result<Vec<u8>> {
    let top = format!("agentsecrets-{}-{}", release.version, release.arch.triple());
    let mut tree = Tree::default();
    tree.file(&format!("{top}/agentsecrets"), release.program.clone(), 0o755);
    tree.file(&format!("{top}/THIRD-PARTY.md"), release.notices.text(), 0o644);
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

fn write(path: &Path, bytes: &[u8], mode: u32, modified: SystemTime) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    File::options().write(true).open(path)?.set_modified(modified)?;
    Ok(())
}
