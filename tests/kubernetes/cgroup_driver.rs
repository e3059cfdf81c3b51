//! Cgroup names of a kubelet and its runtime, under either driver.

/// The manager of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {
    Systemd,
    Cgroupfs,
}

impl Driver {
    /// The parent cgroup of all pods.
    pub(super) fn kubepods(self) -> &'static str {
        match self {
            Self::Systemd => "kubepods.slice",
            Self::Cgroupfs => "kubepods",
        }
    }

    /// The cgroup of a quality-of-service class; guaranteed pods (`""`) have none.
    pub(super) fn quality(self, quality: &str) -> String {
        let all = self.kubepods();
        match (self, quality) {
            (_, "") => all.to_owned(),
            (Self::Systemd, quality) => format!("{all}/kubepods-{quality}.slice"),
            (Self::Cgroupfs, quality) => format!("{all}/{quality}"),
        }
    }

    pub(super) fn pod(self, quality: &str, uid: &str) -> String {
        let above = self.quality(quality);
        let name = uid.replace('-', "_");
        match (self, quality) {
            (Self::Systemd, "") => format!("{above}/kubepods-pod{name}.slice"),
            (Self::Systemd, quality) => format!("{above}/kubepods-{quality}-pod{name}.slice"),
            (Self::Cgroupfs, _) => format!("{above}/pod{uid}"),
        }
    }

    /// A container's cgroup, below its pod's.
    pub(super) fn container(self, id: &str) -> String {
        match self {
            Self::Systemd => format!("cri-containerd-{id}.scope"),
            Self::Cgroupfs => id.to_owned(),
        }
    }
}
