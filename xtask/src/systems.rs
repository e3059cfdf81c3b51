//! `cargo xtask systems`: that the crate compiles for Windows and macOS, seen from Linux. Rust's own builds of
//! the standard library for them are not needed: it is built from Debian's source package, by Debian's
//! compiler, and C by mingw's and zig's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anstream::println;
use anyhow::{Context, Result};

use crate::tools;
use crate::workspace::{heading, root, run};

/// The version of zig, which brings a C compiler for macOS.
const ZIG: &str = "ziglang==0.13.0";

/// A system that the crate must compile for.
struct System {
    name: &'static str,
    target: &'static str,
    /// What `cc` and `ar` of the target are: variables for the build scripts of crates with C code.
    compilers: fn(&Path) -> Vec<(&'static str, PathBuf)>,
}

const SYSTEMS: &[System] = &[
    System {
        name: "Windows",
        target: "x86_64-pc-windows-gnu",
        compilers: |_| vec![("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", "x86_64-w64-mingw32-gcc".into())],
    },
    System {
        name: "macOS",
        target: "aarch64-apple-darwin",
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

/// Checks all of them, with warnings denied, and writes to `target/systems.txt` how long each took.
pub(crate) fn check() -> Result<()> {
    tools::install(tools::FOR_OTHER_SYSTEMS)?;
    let zig = zig()?;
    let mut report = String::new();
    for system in SYSTEMS {
        heading(&format!("check for {}", system.name));
        let started = Instant::now();
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo.args(["check", "--quiet", "--locked", "--package", "agentsecrets", "--target", system.target]);
        cargo.args(["-Z", "build-std=std,panic_abort"]).current_dir(root());
        cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        cargo.env("CARGO_TARGET_DIR", root().join("target/systems")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        // Debian's compiler is another than the workspace's: what warns there need not here, and is no error.
        cargo.env_remove("RUSTFLAGS").envs((system.compilers)(&zig));
        run(&mut cargo)?;
        let line =
            format!("{} ({}): compiles; {} s\n", system.name, system.target, started.elapsed().as_secs());
        println!("   {}", line.trim_end());
        report.push_str(&line);
    }
    let path = root().join("target/systems.txt");
    fs::write(&path, report).with_context(|| format!("cannot write {}", path.display()))
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
