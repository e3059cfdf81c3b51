//! Which files the interceptor can reach, by Landlock: what it takes to verify servers and to resolve
//! names, the person's policy and vault to read, the folder of the audit log, its key and its anchor to
//! write (which is all of ours where one folder holds everything). It opens no port. Kernels
//! without Landlock, or with less of it, still have the file modes and the filter of system calls.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};

use crate::sys::home::Home;

/// The newest version of Landlock that is asked for.
const NEWEST: ABI = ABI::V6;

/// Where the system keeps its roots, its resolver's configuration, its libraries and what it says of
/// itself.
const SYSTEM: &[&str] = &[
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/etc",
    "/lib",
    "/lib64",
    "/nix/store",
    "/proc",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/usr",
    "/var/lib/ca-certificates",
];

/// Variables that name files or folders which are read.
const NAMED: &[&str] =
    &["AGENTSECRETS_UPSTREAM_CA", "AGENTSECRETS_VAULT_KEY_FILE", "SSL_CERT_DIR", "SSL_CERT_FILE"];

/// Confines the calling thread, and those that it starts from here on, to what serving `home` takes, where
/// the tree of cgroups is at `cgroups`.
pub(crate) fn confine(home: &Home, cgroups: &Path) -> io::Result<()> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
    let terminal: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::BindTcp))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(to_read(home, cgroups), read)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(home.audit().parent(), write)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules([home.rotated(), home.approvals()], write)))
        // Where a passphrase is asked for, before the terminal becomes the agent's.
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(["/dev/tty"], terminal)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map(drop)
        .map_err(io::Error::other)
}

/// Confines the calling thread, and those that it starts from here on, to the descriptors that it has: it
/// reaches no file, opens no port and connects to none.
pub fn confine_to_nothing() -> io::Result<()> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map(drop)
        .map_err(io::Error::other)
}

fn to_read(home: &Home, cgroups: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    paths.push(cgroups.to_path_buf());
    paths.extend(home.folders().into_iter().map(Path::to_path_buf));
    for named in NAMED.iter().filter_map(std::env::var_os).map(PathBuf::from) {
        // A key may be made later.
        paths.extend(if named.exists() { Some(named) } else { named.parent().map(Path::to_path_buf) });
    }
    // What is a link is replaced where it leads to.
    let links = [home.policy(), home.vault(), "/etc/resolv.conf".into(), "/etc/hosts".into()];
    paths.extend(links.iter().filter_map(|link| Some(link.canonicalize().ok()?.parent()?.to_path_buf())));
    paths.retain(|path| path.is_absolute() && *path != Path::new("/"));
    paths
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use super::*;

    /// What `attempt` says in a thread that is confined to the home of a person with the folders of the
    /// platform. Only that thread is.
    fn confined<T: Send>(attempt: impl FnOnce(&Home) -> T + Send) -> T {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path())).unwrap();
        for file in [home.policy(), home.vault(), home.audit().join("audit.jsonl")] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "text").unwrap();
        }
        std::thread::scope(|scope| {
            scope
                .spawn(|| confine(&home, Path::new("/sys/fs/cgroup")).map(|()| attempt(&home)).unwrap())
                .join()
                .unwrap()
        })
    }

    #[test]
    fn what_serving_takes_can_be_read_and_the_log_be_written() {
        confined(|home| {
            for file in [home.policy(), home.vault(), "/etc/passwd".into(), "/proc/self/status".into()] {
                assert!(fs::read(&file).is_ok(), "{}", file.display());
            }
            crate::sys::files::replace(&home.audit().with_extension("head"), b"head").unwrap();
            fs::remove_file(home.audit().join("audit.jsonl")).unwrap();
        });
    }

    #[test]
    fn nothing_else_can_be_read_written_executed_or_bound() {
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        confined(|home| {
            assert!(fs::read(elsewhere.path()).is_err());
            assert!(fs::read_dir("/").is_err());
            for file in [home.policy(), home.vault(), elsewhere.path().to_path_buf()] {
                assert!(fs::write(&file, "other").is_err(), "{}", file.display());
                assert!(fs::remove_file(&file).is_err(), "{}", file.display());
            }
            assert!(std::process::Command::new("/bin/true").status().is_err());
            assert!(TcpListener::bind("127.0.0.1:0").is_err());
            // Nor is another process's memory, whose user it may be.
            assert!(fs::read("/proc/1/environ").is_err());
        });
        assert!(fs::read(elsewhere.path()).is_ok(), "the tests' other threads are as free as before");
    }
}
