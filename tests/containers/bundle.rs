//! What an engine makes of a service: the OCI configuration that `runc` is given, with the mounts, users,
//! capabilities, namespaces and system calls that Docker would give it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::compose::Service;

/// What Docker gives a container that says nothing.
const USUAL_CAPABILITIES: [&str; 14] = [
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

/// Where a container is put, beside what its service says.
pub(crate) struct Placed<'a> {
    pub(crate) id: &'a str,
    pub(crate) root: &'a Path,
    pub(crate) netns: PathBuf,
    /// What each of the service's volumes and secrets leads to: source, place, whether it is read-only.
    pub(crate) mounts: Vec<(PathBuf, String, bool)>,
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<String>,
    /// The pid namespace to share, if one is.
    pub(crate) pids: Option<PathBuf>,
}

/// The configuration of `service`.
pub(crate) fn configuration(service: &Service, placed: &Placed<'_>) -> Value {
    let capabilities = capabilities(service);
    let (uid, gid) = service.user.split_once(':').unwrap();
    let (uid, gid): (u32, u32) = (uid.parse().unwrap(), gid.parse().unwrap());
    // Who is not root has them within bounds alone.
    let held: Vec<String> = if uid == 0 { capabilities.iter().cloned().collect() } else { Vec::new() };
    let mut pids = json!({ "type": "pid" });
    if let Some(shared) = &placed.pids {
        pids["path"] = json!(shared);
    }
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": uid, "gid": gid },
            "args": placed.command,
            "env": placed.environment,
            "cwd": service.working_dir.as_deref().unwrap_or("/"),
            "capabilities": {
                "bounding": capabilities, "effective": held, "permitted": held, "inheritable": [], "ambient": [],
            },
            "noNewPrivileges": service.security_opt.iter().any(|option| option == "no-new-privileges:true"),
        },
        "root": { "path": placed.root, "readonly": service.read_only },
        "hostname": "container",
        "mounts": mounts(placed),
        "linux": {
            "cgroupsPath": format!("/{}/docker-{}.scope", service.cgroup_parent, placed.id),
            "namespaces": [
                pids, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" },
                { "type": "network", "path": placed.netns },
            ],
            "seccomp": seccomp(&capabilities),
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Those of `cap_drop` and `cap_add`.
pub(crate) fn capabilities(service: &Service) -> BTreeSet<String> {
    assert_eq!(service.cap_drop, ["ALL"]);
    let usual = USUAL_CAPABILITIES.iter().filter(|_| !service.cap_drop.iter().any(|name| name == "ALL"));
    let names = usual.copied().chain(service.cap_add.iter().map(String::as_str));
    names.map(|name| format!("CAP_{name}")).collect()
}

fn mounts(placed: &Placed<'_>) -> Vec<Value> {
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
    for (source, at, read_only) in &placed.mounts {
        let access = if *read_only { "ro" } else { "rw" };
        mounts.push(
            json!({ "destination": at, "type": "bind", "source": source, "options": ["rbind", "rprivate", access] }),
        );
    }
    mounts
}

/// Docker's own list of system calls, as it is for a container with these capabilities.
fn seccomp(capabilities: &BTreeSet<String>) -> Value {
    let text = std::fs::read_to_string(super::file("tests/containers/specs/docker-seccomp.json")).unwrap();
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
