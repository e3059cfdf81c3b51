//! `cargo xtask systems`: builds the program for Windows, and with `--run` tests it under Wine. For macOS it checks the
//! crates, and compares their structures with the header of the system. Debian's compiler builds the standard library
//! from Debian's source package; mingw and zig compile C.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anstream::println;
use anyhow::{Context, Result, bail};

use crate::workspace::{cargo, heading, root, run};
use crate::{packages, tools};

/// The PyPI package of zig, which has a C compiler for macOS.
const ZIG: &str = "ziglang==0.13.0";

/// Build for Windows and check for macOS.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also run the tests of tests/windows under Wine
    #[arg(long)]
    run: bool,
}

/// A system that the crates must compile for.
struct System {
    name: &'static str,
    target: &'static str,
    /// The command of cargo.
    command: &'static str,
    /// The result of that command, for the report.
    result: &'static str,
    /// The C compiler, archiver or linker, as environment variables for build scripts.
    compilers: fn(&Path) -> Vec<(&'static str, PathBuf)>,
}

const SYSTEMS: &[System] = &[
    System {
        name: "Windows",
        target: "x86_64-pc-windows-gnu",
        command: "build",
        result: "compiles and links",
        compilers: |_| vec![("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", "x86_64-w64-mingw32-gcc".into())],
    },
    System {
        name: "macOS",
        target: "aarch64-apple-darwin",
        command: "check",
        result: "compiles",
        compilers: |zig| {
            vec![
                ("CC_aarch64_apple_darwin", zig.join("cc")),
                ("AR_aarch64_apple_darwin", zig.join("ar")),
                // Build scripts ask for Apple's SDK, though the check needs none of it.
                ("SDKROOT", zig.to_path_buf()),
            ]
        },
    },
];

/// Builds, checks and tests, and writes the report to `target/systems.txt`.
pub(crate) fn run_all(args: &Args) -> Result<()> {
    let mut report = compile()?;
    if args.run {
        prepare_wine()?;
        heading("the Windows program under Wine");
        report.push_str(&tests()?);
    }
    write(&report)
}

/// Everything but the Wine tests, which `cargo xtask test --full` runs with the other tests.
pub(crate) fn prepare_for_tests() -> Result<()> {
    let report = compile()?;
    prepare_wine()?;
    write(&report)
}

/// Builds or checks the program for every system, and reports the results.
fn compile() -> Result<String> {
    tools::install(tools::FOR_OTHER_SYSTEMS)?;
    let zig = zig()?;
    let mut report = String::new();
    for system in SYSTEMS {
        heading(&format!("{} for {}", system.command, system.name));
        let started = Instant::now();
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo.args([
            system.command,
            "--quiet",
            "--locked",
            "--package",
            "agentsecrets",
            "--target",
            system.target,
        ]);
        cargo.args(["-Z", "build-std=std,panic_abort"]).current_dir(root());
        if system.command == "build" {
            // Speed does not matter here.
            cargo.args(["--config", "profile.dev.package.'*'.opt-level=0"]);
            // Wine aligns the list of credentials in a way that debug assertions reject.
            let unchecked = "profile.dev.package.windows-native-keyring-store.debug-assertions=false";
            cargo.args(["--config", unchecked]);
        }
        cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        cargo.env("CARGO_TARGET_DIR", root().join("target/systems")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        // Debian's compiler has another version: its warnings are no errors.
        cargo.env_remove("RUSTFLAGS").envs((system.compilers)(&zig));
        run(&mut cargo)?;
        let (name, target, result) = (system.name, system.target, system.result);
        report
            .push_str(&reported(&format!("{name} ({target}): {result}; {} s", started.elapsed().as_secs())));
    }
    let mut cc = Command::new(zig.join("cc"));
    cc.arg("-c")
        .arg(root().join("xtask/src/systems/macos.c"))
        .arg("-o")
        .arg(root().join("target/systems/macos.o"));
    run(&mut cc)?;
    report.push_str(&reported("macOS: the structures of the crate match sys/proc_info.h"));
    Ok(report)
}

/// Installs Wine and the other parts that the tests of the Windows program need.
fn prepare_wine() -> Result<()> {
    tools::install(tools::FOR_WINE)?;
    packages::for_windows()?;
    let folder = root().join("target/systems/x86_64-pc-windows-gnu/debug");
    let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
    gcc.args(["-O1", "-shared", "-s"]).arg(root().join("xtask/src/systems/bcryptprimitives.c"));
    run(gcc.arg("-ladvapi32").arg("-o").arg(folder.join("bcryptprimitives.dll")))
}

/// Runs the Wine tests, and returns their output.
fn tests() -> Result<String> {
    let mut command = cargo();
    command.args(["test", "--package", "agentsecrets", "--test", "tests", "windows::"]);
    let output = command.args(["--", "--include-ignored"]).stderr(Stdio::inherit()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{printed}");
    if !output.status.success() {
        bail!("the tests of the Windows program failed under Wine ({})", output.status);
    }
    Ok(printed)
}

/// Prints a line of the report.
fn reported(line: &str) -> String {
    println!("   {line}");
    format!("{line}\n")
}

fn write(report: &str) -> Result<()> {
    let path = root().join("target/systems.txt");
    fs::write(&path, report).with_context(|| format!("cannot write {}", path.display()))?;
    println!("   written to {}", path.display());
    Ok(())
}

/// Installs zig into a folder with `cc` and `ar`, which call it.
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
    // zig has other options for the target than Xcode's compiler.
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
