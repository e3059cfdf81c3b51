//! Programs that run whatever they are given. The hash of one says that it is Python, and nothing of what
//! Python does. They are known by their name, by the package that they came in, and by the functions that an
//! interpreter's library has: a copy under another name has them, too.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use object::{Object, ObjectSymbol};

/// Names of interpreters, without what comes behind: versions, `-static`.
const NAMES: &[&str] = &[
    "ash",
    "awk",
    "bash",
    "beam.smp",
    "bun",
    "busybox",
    "csh",
    "dash",
    "deno",
    "dotnet",
    "elixir",
    "emacs",
    "env",
    "erl",
    "escript",
    "expect",
    "fish",
    "gawk",
    "gdb",
    "ghci",
    "groovy",
    "guile",
    "iex",
    "java",
    "jjs",
    "jruby",
    "jshell",
    "julia",
    "kotlin",
    "ksh",
    "lldb",
    "lua",
    "luajit",
    "mawk",
    "mksh",
    "mono",
    "nawk",
    "node",
    "nodejs",
    "nvim",
    "ocaml",
    "perl",
    "php",
    "php-cgi",
    "powershell",
    "pwsh",
    "pypy",
    "python",
    "r",
    "racket",
    "rscript",
    "ruby",
    "runghc",
    "sbcl",
    "scala",
    "sh",
    "sqlite",
    "swipl",
    "tclsh",
    "tcsh",
    "toybox",
    "vim",
    "wine",
    "wish",
    "zsh",
];

/// Name prefixes of programs that load other programs: the dynamic linker and emulators.
const NAME_PREFIXES: &[&str] = &["ld-linux", "ld-musl", "ld.so", "ld64.so", "qemu-"];

/// Names of programs that do what their arguments say: anybody who may start one may have it do anything.
const LAUNCHERS: &[&str] = &[
    "aria2c", "curl", "docker", "ftp", "git", "http", "kubectl", "nc", "ncat", "openssl", "podman", "rclone",
    "rsync", "scp", "sftp", "socat", "ssh", "wget", "wscat", "xh",
];

/// Functions of interpreters' libraries, which a program has or asks for, and what they are of.
const FUNCTIONS: &[(&str, &str)] = &[
    ("Py_BytesMain", "python"),
    ("Py_RunMain", "python"),
    ("PyRun_SimpleStringFlags", "python"),
    ("perl_parse", "perl"),
    ("ruby_process_options", "ruby"),
    ("ruby_run_node", "ruby"),
    ("luaL_loadfilex", "lua"),
    ("luaL_loadstring", "lua"),
    ("JLI_Launch", "java"),
    ("php_execute_script", "php"),
    ("Tcl_Main", "tcl"),
    ("Tcl_MainEx", "tcl"),
    ("scm_boot_guile", "guile"),
    ("parse_and_execute", "bash"),
];

/// The largest file whose functions are looked at, in bytes.
const MAX_PROGRAM_SIZE: u64 = 512 << 20;

/// The first bytes of every program that Linux runs by itself. Programs of other systems are known by name
/// alone.
const ELF: &[u8] = b"\x7fELF";
/// The verdict on a program that cannot be read.
const PERHAPS: &str = "perhaps: its functions cannot be looked at";

/// The kind of interpreter at `path`, if it is one; `package` is the name of the package that brought it.
pub fn kind(path: &Path, package: Option<&str>) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    by_name(&name).or_else(|| package.and_then(by_name)).or_else(|| by_functions(path)).map(str::to_owned)
}

/// Whether the program at `path` does what its arguments say.
pub fn runs_other_programs(path: &Path) -> bool {
    path.file_name().is_some_and(|name| LAUNCHERS.contains(&bare(&name.to_string_lossy())))
}

fn by_name(name: &str) -> Option<&'static str> {
    let bare = bare(name);
    let named = NAMES.iter().find(|known| **known == bare || **known == name);
    named.or_else(|| NAME_PREFIXES.iter().find(|beginning| name.starts_with(**beginning))).copied()
}

/// `python3.11-minimal`, `ruby3.1` and `perl-base` without what tells versions and builds apart.
fn bare(name: &str) -> &str {
    let builds = ["-minimal", "-base", "-static", "-dbg", "-headless", "-cli", ".exe", "-bin"];
    let is_version = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let mut bare = name;
    loop {
        let before = bare;
        bare = builds.iter().fold(bare, |bare, build| bare.strip_suffix(build).unwrap_or(bare));
        bare = bare.trim_end_matches(is_version);
        if bare == before || bare.is_empty() {
            return bare;
        }
    }
}

/// The verdict by the functions that the program at `path` contains. An unreadable program may be anything.
fn by_functions(path: &Path) -> Option<&'static str> {
    let Ok(mut file) = File::open(path) else { return Some(PERHAPS) };
    let mut start = Vec::with_capacity(ELF.len());
    if (&mut file).take(ELF.len() as u64).read_to_end(&mut start).is_err() {
        return Some(PERHAPS);
    }
    // What a script's first line names is the program that runs, and never the script.
    if start != ELF {
        return None;
    }
    let is_small = file.metadata().is_ok_and(|file| file.len() <= MAX_PROGRAM_SIZE);
    let mut bytes = start;
    if !is_small || file.take(MAX_PROGRAM_SIZE).read_to_end(&mut bytes).is_err() {
        return Some(PERHAPS);
    }
    let Ok(file) = object::File::parse(&*bytes) else { return Some(PERHAPS) };
    let mut symbols = file.dynamic_symbols().filter_map(|symbol| symbol.name().ok());
    symbols.find_map(|name| FUNCTIONS.iter().find(|(function, _)| *function == name)).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreter_is_known_by_name_in_any_version() {
        for (path, package) in [
            ("/usr/bin/python3.11", None),
            ("/opt/python3", None),
            ("/usr/bin/perl5.36.0", None),
            ("/usr/bin/lua5.4", None),
            ("/usr/bin/php8.2", None),
            ("/bin/busybox", None),
            ("/usr/bin/env", None),
            ("/usr/local/bin/node-22", None),
            ("/usr/lib/jvm/java-17/bin/java", None),
            ("/lib64/ld-linux-x86-64.so.2", None),
            ("/opt/agent", Some("python3.11-minimal")),
            ("/opt/agent", Some("perl-base")),
            ("/opt/agent", Some("nodejs")),
        ] {
            assert!(kind(Path::new(path), package).is_some(), "{path} {package:?}");
        }
        for (path, package) in [
            ("/usr/bin/claude", None),
            ("/usr/bin/shasum2", None),
            ("/usr/bin/curl", Some("curl")),
            ("/usr/bin/nodecode", None),
        ] {
            let name = path.rsplit('/').next().unwrap();
            assert_eq!(by_name(name).or_else(|| package.and_then(by_name)), None, "{path} {package:?}");
        }
        assert!(
            runs_other_programs(Path::new("/usr/bin/curl"))
                && !runs_other_programs(Path::new("/usr/bin/claude"))
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn renamed_copy_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        for (program, is) in [("/usr/bin/perl", Some("perl")), ("/usr/bin/sort", None)] {
            let copy = folder.path().join("agent");
            std::fs::copy(program, &copy).unwrap();
            assert_eq!(kind(&copy, None).as_deref(), is, "{program}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn unreadable_program_may_be_an_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let large = at("large", &std::fs::read("/usr/bin/sort").unwrap());
        std::fs::File::options().write(true).open(&large).unwrap().set_len(MAX_PROGRAM_SIZE + 1).unwrap();
        for path in
            [large, at("cut", b"\x7fELF\x02\x01"), folder.path().join("gone"), folder.path().to_owned()]
        {
            assert_eq!(kind(&path, None).as_deref(), Some(PERHAPS), "{}", path.display());
        }
        assert_eq!(kind(&at("script", b"#!/bin/sh\n"), None), None);
    }
}
