//! The container that a cgroup is of, by its path: the engines put a container's id there, and a process in it
//! can change nothing above itself. The outermost one counts. Below a user's own service manager the path
//! is that user's to choose, and proves nothing.

use std::fmt::Display;
use std::io;

use crate::types::hex::is_hex;

/// Digits of a container's id, as every engine gives it.
const ID: usize = 64;
/// Prefixes that engines write before the id: Docker, containerd and CRI-O for Kubernetes, Podman, nerdctl.
const PREFIXES: [&str; 5] = ["docker", "cri-containerd", "crio", "libpod", "nerdctl"];

/// A container, named by its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Container<'a> {
    /// Its id: 64 lower-case hex digits.
    pub id: &'a str,
    /// The uid of the Kubernetes pod that it is in, as the path has it (with `_` for `-` under systemd).
    pod: Option<&'a str>,
}

/// The path in the unified hierarchy of the process `who`: its id, or `self`. `None` where it is in none.
pub fn cgroup_of(who: impl Display) -> io::Result<Option<String>> {
    let table = std::fs::read_to_string(format!("/proc/{who}/cgroup"))?;
    Ok(table.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned))
}

impl<'a> Container<'a> {
    /// The outermost container on a path of the unified hierarchy, such as
    /// `/system.slice/docker-<id>.scope`.
    pub fn of(cgroup: &'a str) -> Option<Self> {
        let mut pod = None;
        for part in cgroup.split('/') {
            if part.starts_with("user@") {
                return None;
            }
            if let Some(id) = id(part) {
                return Some(Self { id, pod });
            }
            pod = uid(part).or(pod);
        }
        None
    }

    /// The uid of its pod, as Kubernetes writes it.
    pub fn pod(&self) -> Option<String> {
        self.pod.map(is_dashed_uid)
    }
}

/// Whether `text` can be the beginning of an id that is long enough to mean one container.
pub fn is_id(text: &str) -> bool {
    (12..=ID).contains(&text.len()) && is_hex(text)
}

/// Whether `text` is an id from its beginning to its end.
pub fn is_whole_id(text: &str) -> bool {
    text.len() == ID && is_hex(text)
}

/// `docker-<id>.scope`, `<id>`, `…:cri-containerd:<id>`.
fn id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let (before, id) = part.split_at_checked(part.len().checked_sub(ID)?)?;
    let engine = before.rsplit(':').find(|word| !word.is_empty()).unwrap_or("");
    let engine = engine.strip_suffix('-').unwrap_or(engine);
    let known = before.is_empty() || (before.ends_with(['-', ':']) && PREFIXES.contains(&engine));
    (known && is_hex(id)).then_some(id)
}

/// The uid of the pod that a folder of this name is the cgroup of, as Kubernetes writes it.
pub fn pod_uid(folder: &str) -> Option<String> {
    uid(folder).map(is_dashed_uid)
}

fn is_dashed_uid(uid: &str) -> String {
    uid.replace('_', "-")
}

/// `pod<uid>`, `kubepods-burstable-pod<uid>.slice`. A static pod's uid is 32 digits.
fn uid(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let (before, uid) = part.rsplit_once("pod")?;
    let named = before.is_empty() || (before.starts_with("kube") && before.ends_with('-'));
    let plain = uid.bytes().filter(|byte| !matches!(byte, b'-' | b'_')).count();
    let shaped = plain == 32 && uid.bytes().all(|byte| is_digit(byte) || matches!(byte, b'-' | b'_'));
    (named && shaped).then_some(uid)
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "3f9a0c1d2e4b5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";
    const POD: &str = "0f3c1a2b-4d5e-6f70-8192-a3b4c5d6e7f8";

    #[test]
    fn container_of_each_engine_and_driver_is_found() {
        let under = POD.replace('-', "_");
        for (path, pod) in [
            (format!("/system.slice/docker-{A}.scope"), false),
            (format!("/docker/{A}"), false),
            (format!("/agentsecrets.slice/agentsecrets-coder.slice/docker-{A}.scope"), false),
            (format!("/agentsecrets/{A}/nested"), false),
            (format!("/machine.slice/libpod-{A}.scope/container"), false),
            (format!("/libpod_parent/libpod-{A}"), false),
            (format!("/kubepods/burstable/pod{POD}/{A}"), true),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{A}.scope"
                ),
                true,
            ),
            (format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{A}.scope"), true),
            (format!("/kubelet.slice/kubelet-kubepods-pod{under}.slice:cri-containerd:{A}"), false),
        ] {
            let found = Container::of(&path).unwrap_or_else(|| panic!("none in {path}"));
            assert_eq!(found.id, A, "{path}");
            assert_eq!(found.pod(), pod.then(|| POD.to_owned()), "{path}");
        }
    }

    #[test]
    fn other_path_is_not_a_container() {
        let upper = A.to_uppercase();
        for path in [
            "/".to_owned(),
            "/user.slice/user-1000.slice/session-2.scope".to_owned(),
            format!("/machine.slice/libpod-conmon-{A}.scope"),
            format!("/kubepods.slice/crio-conmon-{A}.scope"),
            format!("/system.slice/docker-{upper}.scope"),
            format!("/system.slice/docker-{}.scope", &A[1..]),
            format!("/system.slice/docker{A}.scope"),
            format!("/system.slice/evil-{A}.scope"),
            // A person makes folders below their own service manager.
            format!("/user.slice/user-1000.slice/user@1000.service/docker-{A}.scope"),
        ] {
            assert_eq!(Container::of(&path), None, "{path}");
        }
    }

    proptest! {
        /// Whoever can make cgroups below a container's stays that container.
        #[test]
        fn nested_cgroup_keeps_container(below in "[-a-z0-9:@._/]{0,120}", other in "[0-9a-f]{64}") {
            let pod = POD.replace('-', "_");
            let path = format!("/kubepods.slice/kubepods-pod{pod}.slice/crio-{A}.scope");
            for below in [below, format!("docker-{other}.scope"), format!("pod{POD}/{other}")] {
                let path = format!("{path}/{below}");
                let found = Container::of(&path).unwrap();
                prop_assert_eq!(found.id, A);
                prop_assert_eq!(found.pod(), Some(POD.to_owned()));
            }
        }

        #[test]
        fn any_path_is_parsed_without_panic(path in ".{0,200}") {
            let _ = Container::of(&path);
        }
    }
}
