//! `cargo xtask dist`: what users get, made from one build without an engine or a network: an OCI image, a Debian
//! package and a tarball, with the list of what is inside, everybody's licences, and checksums. All of
//! it is the same to the byte whenever and wherever it is made, and `--check` proves that by making it twice. For
//! another architecture than this machine's, Debian's compilers do it, as for other systems.

mod archive;
mod bill;
mod image;
mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anstream::println;
use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};

use crate::tools;
use crate::workspace::{cargo, root, run, show};

/// `cargo xtask dist [--check]`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build it all a second time, from a copy elsewhere, and compare every byte
    #[arg(long)]
    check: bool,
    /// Take a program that was built elsewhere, static, instead of building it
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    program: Option<PathBuf>,
    /// For this architecture, in a folder of its own if it is not this machine's
    #[arg(long, value_enum, default_value_t = Arch::here())]
    arch: Arch,
}

/// An architecture, as Docker and Debian call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The compiler's name for it.
    fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The C compiler for it, as Debian calls it.
    fn gcc(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// Where what is made for it goes.
    fn folder(self) -> PathBuf {
        let name = if self == Self::here() { "dist".to_owned() } else { format!("dist-{}", self.name()) };
        root().join("target").join(name)
    }
}

/// One version for one architecture.
struct Release {
    version: String,
    /// The compiler's name for the target.
    triple: &'static str,
    /// Docker's and Debian's name for the architecture.
    arch: &'static str,
    /// The time that everything bears: that of the last commit, in seconds since 1970.
    epoch: u64,
    /// The program.
    program: Vec<u8>,
    bill: bill::Bill,
}

/// Makes everything, or makes it twice.
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

/// Makes everything twice, and once for the other architecture, for the tests that are too long for every change.
pub(crate) fn for_tests() -> Result<()> {
    let other = if Arch::here() == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 };
    run_all(&Args { check: true, program: None, arch: Arch::here() })?;
    run_all(&Args { check: false, program: None, arch: other })
}

/// The workspace's files, copied to another place.
fn copied() -> Result<PathBuf> {
    // Beside what is made, and no part of it, as their paths are told apart.
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
    let (triple, arch, epoch) = (args.arch.triple(), args.arch.name(), epoch()?);
    fs::create_dir_all(out)?;
    let program = match &args.program {
        Some(program) => fs::read(program).with_context(|| format!("cannot read {}", program.display()))?,
        None => build(source, out, args.arch, epoch)?,
    };
    let bill = bill::of(triple)?;
    let version = bill.version.clone();
    let release = Release { version, triple, arch, epoch, program, bill };
    let name = |kind: &str| out.join(format!("agentsecrets-{}-{}{kind}", release.version, release.arch));
    let files = [
        (name(".oci.tar"), image::archive(&release)?),
        (name(".deb"), package::debian(&release, out)?),
        (name(".tar.gz"), package::tarball(&release)?),
        (name(".cdx.json"), release.bill.cyclone_dx(release.epoch)?),
        (out.join("THIRD-PARTY.md"), release.bill.notices().into_bytes()),
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

/// The program, static, so that it runs on any Linux and in an empty image.
fn build(source: &Path, out: &Path, arch: Arch, epoch: u64) -> Result<Vec<u8>> {
    let triple = arch.triple();
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    // No path of this machine is in what is made.
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

/// Debian's cargo, which builds the standard library for `arch` too, with Debian's C compiler for it.
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

/// When the last commit was made.
fn epoch() -> Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let output = Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]).output()?;
    if !output.status.success() {
        bail!("not a git repository: set SOURCE_DATE_EPOCH to the release's time, in seconds since 1970");
    }
    String::from_utf8(output.stdout)?.trim().parse().context("git gives no time")
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
