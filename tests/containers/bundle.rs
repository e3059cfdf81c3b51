//! A container independent of its engine, and the `runc` configuration for it: mounts, users, capabilities,
//! namespaces and system calls.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Default capabilities, the same in Docker and containerd.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A container as its engine specifies it.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// 64 hex digits.
    pub(crate) id: String,
    /// The image is the service's; else it is an agent's.
    pub(crate) is_ours: bool,
    pub(crate) user: (u32, u32),
    pub(crate) capabilities: BTreeSet<String>,
    pub(crate) no_new_privileges: bool,
    pub(crate) read_only: bool,
    pub(crate) working_dir: String,
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<String>,
    /// Source, path in the container, read-only.
    pub(crate) mounts: Vec<(PathBuf, String, bool)>,
    /// The path in the cgroup hierarchy.
    pub(crate) cgroup: String,
    /// Shared namespaces by their `runc` type; all others are private.
    pub(crate) shared: Vec<(&'static str, PathBuf)>,
    /// The health check.
    pub(crate) check: Vec<String>,
}

/// The default set without `drop`, with `add`.
pub(crate) fn capabilities(drop: &[String], add: &[String]) -> BTreeSet<String> {
    assert_eq!(drop, ["ALL"]);
    let usual = DEFAULT_CAPABILITIES.iter().filter(|_| !drop.iter().any(|name| name == "ALL"));
    let names = usual.copied().chain(add.iter().map(String::as_str));
    names.map(|name| format!("CAP_{name}")).collect()
}

/// The `runc` configuration of a container with its files at `root`.
pub(crate) fn configuration(bundle: &Bundle, root: &Path) -> Value {
    let Bundle { capabilities, user: (uid, gid), .. } = bundle;
    // A user other than root gets them in the bounding set only.
    let bounding: Vec<&String> = if *uid == 0 { capabilities.iter().collect() } else { Vec::new() };
    let namespaces = ["pid", "ipc", "uts", "mount", "cgroup", "network"].map(|kind| {
        let shared = bundle.shared.iter().find(|(shared, _)| *shared == kind);
        shared.map_or_else(|| json!({ "type": kind }), |(_, path)| json!({ "type": kind, "path": path }))
    });
    let mut configuration = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": uid, "gid": gid },
            "args": bundle.command,
            "env": bundle.environment,
            "cwd": bundle.working_dir,
            "capabilities": {
                "bounding": capabilities, "effective": bounding, "permitted": bounding, "inheritable": [], "ambient": [],
            },
            "noNewPrivileges": bundle.no_new_privileges,
        },
        "root": { "path": root, "readonly": bundle.read_only },
        "mounts": mounts(&bundle.mounts),
        "linux": {
            "cgroupsPath": bundle.cgroup,
            "namespaces": namespaces,
            "seccomp": seccomp(capabilities),
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if bundle.shared.iter().all(|(kind, _)| *kind != "uts") {
        configuration["hostname"] = "container".into();
    }
    configuration
}

fn mounts(extra: &[(PathBuf, String, bool)]) -> Vec<Value> {
    let of = |kind: &str, at: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        of("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        of("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        of("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        of("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        of("cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        of("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        of("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ];
    for (source, at, read_only) in extra {
        let access = if *read_only { "ro" } else { "rw" };
        mounts.push(
            json!({ "destination": at, "type": "bind", "source": source, "options": ["rbind", "rprivate", access] }),
        );
    }
    mounts
}

/// Docker's own seccomp profile, evaluated for these capabilities.
fn seccomp(capabilities: &BTreeSet<String>) -> Value {
    let text =
        std::fs::read_to_string(super::workspace_file("tests/containers/specs/docker-seccomp.json")).unwrap();
    let profile: Value = serde_json::from_str(&text).unwrap();
    let named = |rule: &Value, key: &str, what: &str| -> Vec<String> {
        let names = rule[key][what].as_array().cloned().unwrap_or_default();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let applies = |rule: &&Value| {
        let here = |arch: &String| arch == if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let included = named(rule, "includes", "caps").iter().all(|name| capabilities.contains(name));
        let excluded = named(rule, "excludes", "caps").iter().any(|name| capabilities.contains(name));
        let arches = named(rule, "includes", "arches");
        included
            && !excluded
            && (arches.is_empty() || arches.iter().any(here))
            && !named(rule, "excludes", "arches").iter().any(here)
    };
    let rules = profile["syscalls"].as_array().unwrap().iter().filter(applies).map(|rule| {
        let mut rule = rule.clone();
        for key in ["includes", "excludes", "comment"] {
            rule.as_object_mut().unwrap().remove(key);
        }
        rule
    });
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": rules.collect::<Vec<_>>(),
    })
}
