//! `cargo xtask systems`: other systems, seen from Linux. A whole program is made for Windows, and with `--run` the
//! tests drive it under Wine; for macOS the crate is checked, and what it says of the system's structures is held
//! against the system's own header. Rust's own builds of the standard library for them are not needed: it is built
//! from Debian's source package, by Debian's compiler, and C by mingw's and zig's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anstream::println;
use anyhow::{Context, Result, bail};

use crate::workspace::{cargo, heading, root, run};
use crate::{packages, tools};

/// The version of zig, which brings a C compiler for macOS.
const ZIG: &str = "ziglang==0.13.0";

/// See what the crate is on other systems.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also run the Windows program under Wine, as the tests in tests/windows do
    #[arg(long)]
    run: bool,
}

/// A system that the crate must compile for.
struct System {
    name: &'static str,
    target: &'static str,
    /// What cargo does for it, and what that shows.
    verb: &'static str,
    shows: &'static str,
    /// What `cc` and `ar` of the target are: variables for the build scripts of crates with C code.
    compilers: fn(&Path) -> Vec<(&'static str, PathBuf)>,
}

const SYSTEMS: &[System] = &[
    System {
        name: "Windows",
        target: "x86_64-pc-windows-gnu",
        verb: "build",
        shows: "compiles and links",
        compilers: |_| vec![("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", "x86_64-w64-mingw32-gcc".into())],
    },
    System {
        name: "macOS",
        target: "aarch64-apple-darwin",
        verb: "check",
        shows: "compiles",
        compilers: |zig| {
            vec![
                ("CC_aarch64_apple_darwin", zig.join("cc")),
                ("AR_aarch64_apple_darwin", zig.join("ar")),
                // Nothing of Apple's own kit is needed to compile, but it is asked for.
                ("SDKROOT", zig.to_path_buf()),
            ]
        },
    },
];

/// Does what `args` say, and writes to `target/systems.txt` what was seen.
pub(crate) fn run_all(args: &Args) -> Result<()> {
    let mut report = seen()?;
    if args.run {
        prepare()?;
        heading("the Windows program under Wine");
        report.push_str(&tests()?);
    }
    write(&report)
}

/// All but the tests, which `cargo xtask test --full` runs among the others.
pub(crate) fn ready() -> Result<()> {
    let report = seen()?;
    prepare()?;
    write(&report)
}

/// Makes or checks the crate for all of them, and says how it went.
fn seen() -> Result<String> {
    tools::install(tools::FOR_OTHER_SYSTEMS)?;
    let zig = zig()?;
    let mut report = String::new();
    for system in SYSTEMS {
        heading(&format!("{} for {}", system.verb, system.name));
        let started = Instant::now();
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo.args([
            system.verb,
            "--quiet",
            "--locked",
            "--package",
            "agentsecrets",
            "--target",
            system.target,
        ]);
        cargo.args(["-Z", "build-std=std,panic_abort"]).current_dir(root());
        if system.verb == "build" {
            // Nothing that is made here is fast, or needs to be.
            cargo.args(["--config", "profile.dev.package.'*'.opt-level=0"]);
            // Wine's list of credentials does not lie as the compiler's own checks want it to.
            let unchecked = "profile.dev.package.windows-native-keyring-store.debug-assertions=false";
            cargo.args(["--config", unchecked]);
        }
        cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        cargo.env("CARGO_TARGET_DIR", root().join("target/systems")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        // Debian's compiler is another than the workspace's: what warns there need not here, and is no error.
        cargo.env_remove("RUSTFLAGS").envs((system.compilers)(&zig));
        run(&mut cargo)?;
        let (name, target, shows) = (system.name, system.target, system.shows);
        report.push_str(&told(&format!("{name} ({target}): {shows}; {} s", started.elapsed().as_secs())));
    }
    let mut cc = Command::new(zig.join("cc"));
    cc.arg("-c")
        .arg(root().join("xtask/src/systems/macos.c"))
        .arg("-o")
        .arg(root().join("target/systems/macos.o"));
    run(&mut cc)?;
    report.push_str(&told("macOS: sys/proc_info.h says of its structures what the crate says"));
    Ok(report)
}

/// What the tests of the Windows program call.
fn prepare() -> Result<()> {
    tools::install(tools::FOR_WINE)?;
    packages::for_windows()?;
    let folder = root().join("target/systems/x86_64-pc-windows-gnu/debug");
    let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
    gcc.args(["-O1", "-shared", "-s"]).arg(root().join("xtask/src/systems/bcryptprimitives.c"));
    run(gcc.arg("-ladvapi32").arg("-o").arg(folder.join("bcryptprimitives.dll")))
}

/// Runs those tests, and gives what they said.
fn tests() -> Result<String> {
    let mut command = cargo();
    command.args(["test", "--package", "agentsecrets", "--test", "tests", "windows::"]);
    let output = command.args(["--", "--include-ignored"]).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    if !output.status.success() {
        bail!("what is promised of Windows does not hold under Wine ({})", output.status);
    }
    Ok(said)
}

fn told(line: &str) -> String {
    println!("   {line}");
    format!("{line}\n")
}

fn write(report: &str) -> Result<()> {
    let path = root().join("target/systems.txt");
    fs::write(&path, report).with_context(|| format!("cannot write {}", path.display()))?;
    println!("   written to {}", path.display());
    Ok(())
}

/// A folder with zig and, for crates that look for a compiler, `cc` and `ar` that call it.
fn zig() -> Result<PathBuf> {
    let folder = root().join("target/zig");
    let zig = folder.join("ziglang/zig");
    if !zig.exists() {
        println!("   installing {ZIG}");
        let mut pip = Command::new("/usr/bin/python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
        pip.args(["--only-binary", ":all:", "--root-user-action", "ignore", ZIG, "--target"]).arg(&folder);
        run(&mut pip)?;
    }
    let zig = zig.display();
    // What Xcode's compiler is told about the target, zig is told in its own way.
    let cc = format!(
        "#!/bin/sh\nn=$#\nwhile [ $n -gt 0 ]; do\n    word=$1; shift; n=$((n-1))\n    case \"$word\" in\n        \
         -arch) shift; n=$((n-1)) ;;\n        -mmacosx-version-min=*|--target=*) ;;\n        *) set -- \"$@\" \
         \"$word\" ;;\n    esac\ndone\nexec {zig} cc -target aarch64-macos -mcpu=apple_m1 \"$@\"\n"
    );
    for (name, script) in [("cc", cc), ("ar", format!("#!/bin/sh\nexec {zig} ar \"$@\"\n"))] {
        let path = folder.join(name);
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(folder)
}
