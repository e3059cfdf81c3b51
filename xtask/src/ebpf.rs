//! Builds the kernel programs, and checks that the committed object comes from its source. The object is committed, so
//! that a build of AgentSecrets needs no compiler for BPF. It is reproducible, so that everybody can check it. The
//! note beside it names the versions of the tools; other versions are an error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::build::elf::{Builder, SectionData};
use object::elf;
use serde::{Deserialize, Serialize};

use crate::digest::sha256;

const PACKAGE: &str = "agentsecrets-ebpf";
const OBJECT: &str = "agentsecrets-ebpf/agentsecrets-ebpf.o";
const NOTE: &str = "agentsecrets-ebpf/agentsecrets-ebpf.json";
const TARGET: &str = "bpfel-unknown-none";
/// Debian's packages of a compiler, its core library's source, and the LLVM of that compiler.
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "libllvm22"];
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const CORE: &str = "/usr/lib/rustlib/src/rust/library/core/src/lib.rs";
const LLVM: &str = "libLLVM.so.22.1";
const LINKER: &str = "0.10.3";

/// `cargo xtask ebpf [--check]`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rebuild elsewhere and compare with the committed object, byte for byte
    #[arg(long)]
    check: bool,
}

/// The sources and tools of the committed object.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    rustc: String,
    llvm: String,
    bpf_linker: String,
    aya_ebpf: String,
    sources_sha256: String,
    object_sha256: String,
}

/// Builds the object and its note, or checks them.
///
/// # Errors
/// When a tool is missing and cannot be installed, the build fails, or the bytes differ.
pub(crate) fn run(args: Args) -> Result<()> {
    let root = root()?;
    let tools = Tools::get(&root)?;
    let object = tools.build(&root, if args.check { "ebpf-check" } else { "ebpf" })?;
    let note = Note {
        rustc: tools.rustc,
        llvm: LLVM.to_owned(),
        bpf_linker: LINKER.to_owned(),
        aya_ebpf: aya_version(&root)?,
        sources_sha256: sources(&root)?,
        object_sha256: sha256(&object),
    };
    if !args.check {
        fs::write(root.join(OBJECT), &object)?;
        fs::write(root.join(NOTE), serde_json::to_string_pretty(&note)? + "\n")?;
        println!("{OBJECT}: {} bytes, sha256 {}", object.len(), note.object_sha256);
        return check_digest();
    }
    let committed = read_note(&root)?;
    ensure!(
        (&committed.rustc, &committed.bpf_linker, &committed.aya_ebpf)
            == (&note.rustc, &note.bpf_linker, &note.aya_ebpf),
        "{OBJECT} was built with {committed:?}, here is {note:?}: install those versions, or build it anew with `cargo xtask ebpf`"
    );
    ensure!(
        fs::read(root.join(OBJECT))? == object,
        "{OBJECT} is not what its source builds to (sha256 {}): build it anew with `cargo xtask ebpf`",
        note.object_sha256
    );
    println!("{OBJECT} comes from its source: sha256 {}", note.object_sha256);
    check_digest()
}

/// Compares source and object with the note, without a build. Every test run does this.
///
/// # Errors
/// When either is not what the note says.
pub(crate) fn check_digest() -> Result<()> {
    let root = root()?;
    let note = read_note(&root)?;
    let rebuild = "build it anew with `cargo xtask ebpf`";
    ensure!(sources(&root)? == note.sources_sha256, "{PACKAGE}/src is newer than {OBJECT}: {rebuild}");
    ensure!(aya_version(&root)? == note.aya_ebpf, "Cargo.lock has another aya-ebpf than {OBJECT}: {rebuild}");
    ensure!(
        sha256(&fs::read(root.join(OBJECT))?) == note.object_sha256,
        "{OBJECT} is not what {NOTE} says: {rebuild}"
    );
    Ok(())
}

/// The tools of the build.
struct Tools {
    /// The output of `rustc --version`.
    rustc: String,
    /// Folder that holds `bpf-linker`.
    bin: PathBuf,
    /// A folder with only the compiler's LLVM, since the linker uses the first that it finds.
    llvm: PathBuf,
}

impl Tools {
    fn get(root: &Path) -> Result<Self> {
        let library =
            || find_llvm().filter(|_| [RUSTC, CARGO, CORE].iter().all(|path| Path::new(path).exists()));
        let library = match library() {
            Some(found) => found,
            None => {
                apt()?;
                library().with_context(|| {
                    format!(
                        "{} are installed, but {RUSTC}, {CORE} or {LLVM} is not there",
                        PACKAGES.join(" ")
                    )
                })?
            }
        };
        let folder = root.join("target/tools");
        let (bin, llvm) = (folder.join("bin"), folder.join("llvm"));
        fs::create_dir_all(&llvm)?;
        let link = llvm.join(LLVM);
        let _ = fs::remove_file(&link);
        symlink(library, &link)?;
        let tools = Self { rustc: output(Command::new(RUSTC).arg("--version"))?, bin, llvm };
        if tools.linker_version().is_none_or(|version| version != format!("bpf-linker {LINKER}")) {
            let crate_name = format!("bpf-linker@{LINKER}");
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            succeed(
                Command::new(cargo)
                    .args(["install", &crate_name, "--locked", "--force", "--root"])
                    .arg(&folder),
            )?;
        }
        Ok(tools)
    }

    fn linker_version(&self) -> Option<String> {
        output(Command::new(self.bin.join("bpf-linker")).arg("--version").env("LD_LIBRARY_PATH", &self.llvm))
            .ok()
    }

    /// Builds in a folder below `target`, and removes debug information.
    fn build(&self, root: &Path, folder: &str) -> Result<Vec<u8>> {
        let folder = root.join("target").join(folder);
        let home = home::cargo()?;
        let flags = [
            "-Clinker=bpf-linker".to_owned(),
            "-Clinker-plugin-lto".to_owned(),
            "-Ctarget-cpu=v3".to_owned(),
            // BTF is made from the debug information.
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            format!("--remap-path-prefix={}=/agentsecrets", root.display()),
            format!("--remap-path-prefix={}=/cargo", home.display()),
        ];
        let path = std::env::join_paths(
            std::iter::once(self.bin.clone())
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        let mut command = Command::new(CARGO);
        // Variables of this process must not change the build.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if ["CARGO", "RUST"].iter().any(|prefix| name_text.starts_with(prefix))
                && name_text != "CARGO_HOME"
            {
                command.env_remove(&name);
            }
        }
        command
            .current_dir(root.join(PACKAGE))
            .args([
                "build",
                "--release",
                "--locked",
                "-Zbuild-std=core",
                "--target",
                TARGET,
                "--features",
                "programs",
            ])
            .arg("--target-dir")
            .arg(&folder)
            .env("PATH", path)
            .env("LD_LIBRARY_PATH", &self.llvm)
            .env("RUSTC", RUSTC)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3");
        succeed(&mut command)?;
        strip(&fs::read(folder.join(TARGET).join("release").join(PACKAGE))?)
    }
}

mod home {
    use super::{Context, PathBuf, Result};

    /// The home of cargo, with the sources of crates.
    pub(super) fn cargo() -> Result<PathBuf> {
        if let Some(home) = std::env::var_os("CARGO_HOME") {
            return Ok(home.into());
        }
        Ok(std::env::home_dir().context("no home directory: set CARGO_HOME")?.join(".cargo"))
    }
}

/// Removes debug sections; BTF stays.
fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        if name.starts_with(".debug") || name.starts_with(".rel.debug") {
            section.delete = true;
        }
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and symbols in one table; the writer wants two.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = vec![];
    builder.write(&mut stripped)?;
    Ok(stripped)
}

fn find_llvm() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    folders.map(|folder| folder.join(LLVM)).find(|path| path.exists())
}

fn apt() -> Result<()> {
    let names = PACKAGES.join(" ");
    println!("installing {names}");
    succeed(Command::new("apt-get").args(["install", "-y", "--no-install-recommends"]).args(PACKAGES))
        .with_context(|| format!("the kernel programs need {names}: as root, `apt-get install {names}`"))
}

/// The digest of the sources, in the order of their paths, with the line ends of the repository.
fn sources(root: &Path) -> Result<String> {
    let mut files = BTreeMap::new();
    collect(root, &root.join(PACKAGE).join("src"), &mut files)?;
    collect(root, &root.join(PACKAGE).join("Cargo.toml"), &mut files)?;
    let mut whole = String::new();
    for (path, text) in files {
        let text = text.replace("\r\n", "\n");
        write!(whole, "{path}\0{}\0{text}", text.len())?;
    }
    Ok(sha256(whole.as_bytes()))
}

fn collect(root: &Path, path: &Path, files: &mut BTreeMap<String, String>) -> Result<()> {
    if path.is_dir() {
        return fs::read_dir(path)?.try_for_each(|entry| collect(root, &entry?.path(), files));
    }
    let name = path
        .strip_prefix(root)?
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>();
    files.insert(name.join("/"), fs::read_to_string(path)?);
    Ok(())
}

fn aya_version(root: &Path) -> Result<String> {
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let mut lines = lock.lines().skip_while(|line| *line != "name = \"aya-ebpf\"").skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    Ok(version.context("Cargo.lock names no aya-ebpf")?.to_owned())
}

fn read_note(root: &Path) -> Result<Note> {
    let text =
        fs::read_to_string(root.join(NOTE)).with_context(|| format!("{NOTE}: run `cargo xtask ebpf`"))?;
    serde_json::from_str(&text).with_context(|| NOTE.to_owned())
}

fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Ok(Path::new(&here).parent().context("xtask lies in the workspace")?.to_path_buf())
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}", done.status);
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{:?}: {status}", command.get_program());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_object_matches_its_source() {
        super::check_digest().unwrap();
    }
}
