//! `cargo xtask dist`: makes the release files from one build, without a container engine: an OCI image, a Debian
//! package, an RPM package, a tarball, an SBOM, third-party notices and checksums. Their bytes depend only on the
//! source, and `--check` builds twice to prove that. Debian's compilers build for the other architecture.

mod archive;
mod image;
mod notices;
mod package;
mod release;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anstream::println;
use anyhow::{Context, Result, ensure};

use self::notices::Notices;
use self::release::{Arch, Release, epoch};
use crate::digest::sha256;
use crate::tools;
use crate::workspace::{cargo, root, run, show};

/// `cargo xtask dist [--check]`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build a second time from a copy of the source, and compare every byte
    #[arg(long)]
    check: bool,
    /// Package this static executable instead of building one
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    program: Option<PathBuf>,
    /// Build for this architecture; the output of another one than this machine's goes to a folder of its own
    #[arg(long, value_enum, default_value_t = Arch::here())]
    arch: Arch,
}

/// Makes all files, and with `--check` makes them again and compares.
pub(crate) fn run_all(args: &Args) -> Result<()> {
    let out = args.arch.folder();
    let made = make(&root(), &out, args)?;
    for file in &made {
        let size = fs::metadata(file)?.len();
        println!("   {:>6.1} MB  {}", size as f64 / 1e6, file.strip_prefix(root()).unwrap_or(file).display());
    }
    if !args.check {
        return Ok(());
    }
    let out = out.with_added_extension("again");
    let again = make(&copied()?, &out, args)?;
    for (one, two) in made.iter().zip(&again) {
        ensure!(fs::read(one)? == fs::read(two)?, "{} and {} differ", one.display(), two.display());
    }
    println!("   built twice, equal to the byte");
    Ok(())
}

/// Makes the files of this architecture twice, and those of the other one once, for `cargo xtask test --full`.
pub(crate) fn for_tests() -> Result<()> {
    let other = if Arch::here() == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 };
    run_all(&Args { check: true, program: None, arch: Arch::here() })?;
    run_all(&Args { check: false, program: None, arch: other })
}

/// Copies the files of the workspace to another folder.
fn copied() -> Result<PathBuf> {
    // Not inside the output folder, whose path is remapped separately.
    let source = root().join("target/again/source");
    if source.exists() {
        fs::remove_dir_all(&source).with_context(|| format!("cannot remove {}", source.display()))?;
    }
    let output = Command::new("git").current_dir(root()).args(["ls-files", "-z"]).output()?;
    ensure!(output.status.success(), "not a git repository, so that it is not known what the source is");
    for name in String::from_utf8(output.stdout)?.split_terminator('\0') {
        let (from, to) = (root().join(name), source.join(name));
        fs::create_dir_all(to.parent().unwrap_or(&source))?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(source)
}

fn make(source: &Path, out: &Path, args: &Args) -> Result<Vec<PathBuf>> {
    let epoch = epoch()?;
    fs::create_dir_all(out)?;
    let program = match &args.program {
        Some(program) => fs::read(program).with_context(|| format!("cannot read {}", program.display()))?,
        None => build(source, out, args.arch, epoch)?,
    };
    let notices = Notices::collect(args.arch.triple())?;
    let release = Release { version: notices.version.clone(), arch: args.arch, epoch, program, notices };
    let name =
        |kind: &str| out.join(format!("agentsecrets-{}-{}{kind}", release.version, release.arch.name()));
    let packager = package::Packager::new(&release, source, out)?;
    let files = [
        (name(".oci.tar"), image::archive(&release)?),
        (name(".deb"), packager.debian()?),
        (name(".rpm"), packager.rpm()?),
        (name(".tar.gz"), package::tarball(&release)?),
        (name(".cdx.json"), sbom::cyclone_dx(&release, source)?),
        (out.join("THIRD-PARTY.md"), release.notices.text().into_bytes()),
    ];
    let mut sums = String::new();
    let mut made = Vec::new();
    for (path, bytes) in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sums += &format!("{}  {name}\n", sha256(&bytes));
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        made.push(path);
    }
    let path = out.join("SHA256SUMS");
    fs::write(&path, sums)?;
    made.push(path);
    Ok(made)
}

/// Builds the program, statically linked, so that it runs on any Linux and in an empty image.
fn build(source: &Path, out: &Path, arch: Arch, epoch: u64) -> Result<Vec<u8>> {
    let triple = arch.triple();
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    // No path of this machine may be in the executable.
    let paths = [(out, "/target"), (source, "/agentsecrets"), (&home, "/cargo")];
    let rust = paths.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let c = paths.map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()));
    let flags = ["-Ctarget-feature=+crt-static".to_owned()].into_iter().chain(rust.into_iter().rev());
    let mut command = if arch == Arch::here() { cargo() } else { cross(arch)? };
    command
        .args(["build", "--release", "--locked", "--package", "agentsecrets", "--bin", "agentsecrets"])
        .args(["--target", triple, "--config", "profile.release.strip=\"debuginfo\"", "--target-dir"])
        .arg(out)
        .current_dir(source)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.collect::<Vec<_>>().join("\u{1f}"))
        .env("CFLAGS", c.join(" "))
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    run(&mut command)?;
    let path = out.join(triple).join("release/agentsecrets");
    fs::read(&path).with_context(|| format!("`{}` made no {}", show(&command), path.display()))
}

/// Debian's cargo and C compiler for `arch`; cargo builds the standard library too.
fn cross(arch: Arch) -> Result<Command> {
    tools::install(tools::FOR_THE_OTHER_ARCHITECTURE)?;
    let triple = arch.triple().replace('-', "_");
    let mut command = Command::new("/usr/bin/cargo");
    command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort");
    command.env(format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase()), arch.gcc());
    command.env(format!("CC_{triple}"), arch.gcc());
    Ok(command)
}
