//! Finds the cgroup of a containerised service in the host's hierarchy, and its parent, to which the hooks
//! are attached. It refuses a parent that may hold containers which are not agents.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cgroup::own_path;
use super::mounts;
use crate::identity::cgroup::{path_in, search};
use crate::identity::container::Container;

/// The inode of the root of the whole hierarchy.
const ROOT_INODE: u64 = 1;

/// The hooked cgroup and our own in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CgroupLocation {
    /// Mount point of the host's hierarchy.
    pub(crate) root: PathBuf,
    /// The hooked cgroup, such as `/agentsecrets.slice`.
    pub(crate) cgroup: String,
    /// Our own cgroup, a child of the hooked one.
    pub(crate) own_cgroup: String,
}

/// Reasons that no cgroup can be hooked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupDiscoveryError {
    /// The host's hierarchy is not mounted here.
    #[error("the host's tree of cgroups cannot be seen from here")]
    HierarchyNotVisible,
    /// Our own cgroup is not visible in it.
    #[error("this process's own cgroup cannot be found in the host's tree")]
    NotFound,
    /// The parent cgroup may hold containers that are not agents.
    #[error("the cgroup around this service, {0}, may hold containers that are not its agents")]
    SharedCgroup(String),
    /// Our own cgroup is not below the named one.
    #[error("this service's own cgroup, {own_cgroup}, is not below {named}")]
    Outside { own_cgroup: String, named: String },
    #[error("the tree of cgroups cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl CgroupLocation {
    /// Finds our location: below the cgroup `named`, or below the cgroup that holds our container if that is
    /// a pod's or its name begins with `agentsecrets`.
    pub(crate) fn discover(named: Option<&str>) -> Result<Self, CgroupDiscoveryError> {
        let mounted: Vec<_> =
            mounts::mount_table()?.into_iter().filter(|mount| mount.kind == "cgroup2").collect();
        let inode = |path: &Path| fs::metadata(path).map(|folder| folder.ino());
        let root = mounted.iter().find(|mount| inode(&mount.path).is_ok_and(|ino| ino == ROOT_INODE));
        let root = root.ok_or(CgroupDiscoveryError::HierarchyNotVisible)?.path.clone();
        let own = own_path()?;
        // In our own cgroup namespace that path begins at ourselves, and so does the mount whose root is "/".
        let visible = mounted.iter().find(|mount| mount.root == "/").ok_or(CgroupDiscoveryError::NotFound)?;
        let own = inode(&visible.path.join(own.trim_start_matches('/')))
            .map_err(|_| CgroupDiscoveryError::NotFound)?;
        let own = search(&root, own)?
            .and_then(|found| path_in(&root, &found))
            .ok_or(CgroupDiscoveryError::NotFound)?;
        let (cgroup, own_cgroup) = parent_to_hook(&own, named)?;
        Ok(Self { root, cgroup, own_cgroup })
    }

    /// The folder of the hooked cgroup.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join(self.cgroup.trim_start_matches('/'))
    }

    pub(crate) fn own_cgroup_id(&self) -> io::Result<u64> {
        Ok(fs::metadata(self.root.join(self.own_cgroup.trim_start_matches('/')))?.ino())
    }
}

/// The cgroup to hook and our own cgroup directly below it, for a process in `own`.
fn parent_to_hook(own: &str, named: Option<&str>) -> Result<(String, String), CgroupDiscoveryError> {
    let cgroup = match named {
        Some(named) => named.trim_end_matches('/').to_owned(),
        None => {
            let container = Container::of(own);
            // An engine may create a cgroup of its own inside the container's.
            let id = container.and_then(|container| own.find(container.id));
            let (above, _) = own
                .get(..id.unwrap_or(own.len()))
                .and_then(|own| own.rsplit_once('/'))
                .ok_or(CgroupDiscoveryError::NotFound)?;
            let name = above.rsplit('/').next().unwrap_or_default();
            if !name.starts_with("agentsecrets") && container.and_then(|container| container.pod()).is_none()
            {
                return Err(CgroupDiscoveryError::SharedCgroup(
                    if above.is_empty() { "/" } else { above }.to_owned(),
                ));
            }
            above.to_owned()
        }
    };
    let below = own.strip_prefix(&cgroup).and_then(|rest| rest.strip_prefix('/'));
    match below.and_then(|rest| rest.split('/').next()).filter(|first| !first.is_empty()) {
        Some(first) if !cgroup.is_empty() => Ok((cgroup.clone(), format!("{cgroup}/{first}"))),
        _ => Err(CgroupDiscoveryError::Outside { own_cgroup: own.to_owned(), named: cgroup }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f9a0c1d2e4b5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

    #[test]
    fn pod_or_own_parent_is_hooked() {
        let pod = "/kubepods.slice/kubepods-pod0f3c1a2b_4d5e_6f70_8192_a3b4c5d6e7f8.slice";
        for (above, own) in [
            ("/agentsecrets.slice", format!("/agentsecrets.slice/docker-{ID}.scope")),
            ("/agentsecrets", format!("/agentsecrets/{ID}")),
            ("/agentsecrets.slice", format!("/agentsecrets.slice/libpod-{ID}.scope/container")),
            (pod, format!("{pod}/cri-containerd-{ID}.scope")),
        ] {
            let (cgroup, own_cgroup) = parent_to_hook(&own, None).unwrap();
            assert_eq!(cgroup, above, "{own}");
            assert_eq!(own_cgroup, own.trim_end_matches("/container"));
        }
    }

    #[test]
    fn shared_parent_is_refused_unless_named() {
        for own in [format!("/system.slice/docker-{ID}.scope"), format!("/docker/{ID}"), "/".to_owned()] {
            assert!(
                matches!(parent_to_hook(&own, None), Err(CgroupDiscoveryError::SharedCgroup(_))),
                "{own}"
            );
        }
        let own = format!("/agents/all/{ID}/inner");
        assert_eq!(parent_to_hook(&own, Some("/agents/")).unwrap(), ("/agents".into(), "/agents/all".into()));
        for named in ["/", "/age", "/others", &own] {
            assert!(
                matches!(parent_to_hook(&own, Some(named)), Err(CgroupDiscoveryError::Outside { .. })),
                "{named}"
            );
        }
    }
}
