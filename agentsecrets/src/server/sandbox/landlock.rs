//! Landlock rules of the interceptor. It reads the system's roots and resolver configuration, the policy and
//! the vault; it writes the audit log with its key and anchor, the rotated tokens and the approvals; it binds
//! no port. On kernels without Landlock, file modes and the seccomp filter remain.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};

use crate::sys::home::Home;

/// The newest Landlock ABI that is requested.
const LANDLOCK_ABI: ABI = ABI::V6;

/// Root certificates, resolver configuration, libraries and the kernel's own information.
const READABLE_SYSTEM_PATHS: &[&str] = &[
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

/// Environment variables that name readable files or folders.
const PATH_VARIABLES: &[&str] =
    &["AGENTSECRETS_UPSTREAM_CA", "AGENTSECRETS_VAULT_KEY_FILE", "SSL_CERT_DIR", "SSL_CERT_FILE"];

/// Confines the calling thread, and threads that it starts later, to the files of `home`. `cgroups` is the
/// mount point of the cgroup hierarchy.
pub(crate) fn confine_to_home(home: &Home, cgroups: &Path) -> io::Result<()> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
    let terminal: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::BindTcp))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(LANDLOCK_ABI)))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(readable_paths(home, cgroups), read)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(home.audit().parent(), write)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules([home.rotated(), home.approvals()], write)))
        // The vault's passphrase is read there before the terminal becomes the agent's.
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(["/dev/tty"], terminal)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map(drop)
        .map_err(io::Error::other)
}

/// Confines the calling thread, and threads that it starts later, to its open descriptors: no file, no bind,
/// no connect.
pub(crate) fn deny_all() -> io::Result<()> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(LANDLOCK_ABI)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(LANDLOCK_ABI)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map(drop)
        .map_err(io::Error::other)
}

fn readable_paths(home: &Home, cgroups: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = READABLE_SYSTEM_PATHS.iter().map(PathBuf::from).collect();
    paths.push(cgroups.to_path_buf());
    paths.extend(home.folders().into_iter().map(Path::to_path_buf));
    for named in PATH_VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from) {
        // A key may be created later.
        paths.extend(if named.exists() { Some(named) } else { named.parent().map(Path::to_path_buf) });
    }
    // A link's target is replaced in the target's folder.
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

    /// Runs `attempt` in a thread that is confined to a home in the platform's folders.
    fn confined<T: Send>(attempt: impl FnOnce(&Home) -> T + Send) -> T {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path())).unwrap();
        for file in [home.policy(), home.vault(), home.audit().join("audit.jsonl")] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "text").unwrap();
        }
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    confine_to_home(&home, Path::new("/sys/fs/cgroup")).map(|()| attempt(&home)).unwrap()
                })
                .join()
                .unwrap()
        })
    }

    #[test]
    fn own_files_remain_accessible() {
        confined(|home| {
            for file in [home.policy(), home.vault(), "/etc/passwd".into(), "/proc/self/status".into()] {
                assert!(fs::read(&file).is_ok(), "{}", file.display());
            }
            crate::sys::files::replace(&home.audit().with_extension("head"), b"head").unwrap();
            fs::remove_file(home.audit().join("audit.jsonl")).unwrap();
        });
    }

    #[test]
    fn other_files_and_ports_are_denied() {
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
            // Another process's memory is out of reach, even that of the same user.
            assert!(fs::read("/proc/1/environ").is_err());
        });
        assert!(fs::read(elsewhere.path()).is_ok(), "the tests' other threads are as free as before");
    }
}
