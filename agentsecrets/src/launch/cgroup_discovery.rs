//! Where a service in a container stands among the agents: its own cgroup, found in the host's tree, and the
//! one around it that is hooked. It refuses to hook what holds containers that are nobody's agents.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cgroup::own;
use super::mounts;
use crate::identity::cgroup::{path_in, search};
use crate::identity::container::Container;

/// The inode of the root of the whole hierarchy.
const WHOLE: u64 = 1;

/// The cgroup that is hooked, with us in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the host's tree is mounted.
    pub root: PathBuf,
    /// The hooked cgroup, such as `/agentsecrets.slice`.
    pub cgroup: String,
    /// Our own, directly below it.
    pub ours: String,
}

/// Why there is no such place.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    /// The host's tree of cgroups is not mounted here.
    #[error("the host's tree of cgroups cannot be seen from here")]
    NoTree,
    /// We are not in it, or not visibly.
    #[error("this process's own cgroup cannot be found in the host's tree")]
    NotFound,
    /// The cgroup above ours holds what is not ours.
    #[error("the cgroup around this service, {0}, may hold containers that are not its agents")]
    NotOurs(String),
    /// We are not below the cgroup that was named.
    #[error("this service's own cgroup, {ours}, is not below {named}")]
    Outside {
        /// Our own.
        ours: String,
        /// What was named.
        named: String,
    },
    /// The kernel's tables could not be read.
    #[error("the tree of cgroups cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl Place {
    /// The place around us: below the cgroup `named`, or else below the one that holds our container, if it is a
    /// pod's or by its name meant for us.
    pub fn find(named: Option<&str>) -> Result<Self, NoPlace> {
        let mounted: Vec<_> = mounts::table()?.into_iter().filter(|mount| mount.kind == "cgroup2").collect();
        let inode = |path: &Path| fs::metadata(path).map(|folder| folder.ino());
        let root = mounted.iter().find(|mount| inode(&mount.point).is_ok_and(|ino| ino == WHOLE));
        let root = root.ok_or(NoPlace::NoTree)?.point.clone();
        let own = own()?;
        // In a namespace of our own that path begins at ourselves, and so does the mount whose root is "/".
        let near = mounted.iter().find(|mount| mount.root == "/").ok_or(NoPlace::NotFound)?;
        let own = inode(&near.point.join(own.trim_start_matches('/'))).map_err(|_| NoPlace::NotFound)?;
        let own = search(&root, own)?.and_then(|found| path_in(&root, &found)).ok_or(NoPlace::NotFound)?;
        let (cgroup, ours) = around(&own, named)?;
        Ok(Self { root, cgroup, ours })
    }

    /// The folder of the hooked cgroup.
    pub fn folder(&self) -> PathBuf {
        self.root.join(self.cgroup.trim_start_matches('/'))
    }

    /// The id of our own cgroup.
    pub fn ours(&self) -> io::Result<u64> {
        Ok(fs::metadata(self.root.join(self.ours.trim_start_matches('/')))?.ino())
    }
}

/// The cgroup to hook and ours directly below it, for a process in `own`.
fn around(own: &str, named: Option<&str>) -> Result<(String, String), NoPlace> {
    let cgroup = match named {
        Some(named) => named.trim_end_matches('/').to_owned(),
        None => {
            let container = Container::of(own);
            // An engine may put a folder of its own inside the container's.
            let id = container.and_then(|container| own.find(container.id));
            let (above, _) = own
                .get(..id.unwrap_or(own.len()))
                .and_then(|own| own.rsplit_once('/'))
                .ok_or(NoPlace::NotFound)?;
            let name = above.rsplit('/').next().unwrap_or_default();
            if !name.starts_with("agentsecrets") && container.and_then(|container| container.pod()).is_none()
            {
                return Err(NoPlace::NotOurs(if above.is_empty() { "/" } else { above }.to_owned()));
            }
            above.to_owned()
        }
    };
    let below = own.strip_prefix(&cgroup).and_then(|rest| rest.strip_prefix('/'));
    match below.and_then(|rest| rest.split('/').next()).filter(|first| !first.is_empty()) {
        Some(first) if !cgroup.is_empty() => Ok((cgroup.clone(), format!("{cgroup}/{first}"))),
        _ => Err(NoPlace::Outside { ours: own.to_owned(), named: cgroup }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f9a0c1d2e4b5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

    #[test]
    fn the_cgroup_of_a_pod_or_one_that_is_named_for_us_is_hooked() {
        let pod = "/kubepods.slice/kubepods-pod0f3c1a2b_4d5e_6f70_8192_a3b4c5d6e7f8.slice";
        for (above, own) in [
            ("/agentsecrets.slice", format!("/agentsecrets.slice/docker-{ID}.scope")),
            ("/agentsecrets", format!("/agentsecrets/{ID}")),
            ("/agentsecrets.slice", format!("/agentsecrets.slice/libpod-{ID}.scope/container")),
            (pod, format!("{pod}/cri-containerd-{ID}.scope")),
        ] {
            let (cgroup, ours) = around(&own, None).unwrap();
            assert_eq!(cgroup, above, "{own}");
            assert_eq!(ours, own.trim_end_matches("/container"));
        }
    }

    #[test]
    fn what_others_are_in_is_not_hooked_unless_it_is_named() {
        for own in [format!("/system.slice/docker-{ID}.scope"), format!("/docker/{ID}"), "/".to_owned()] {
            assert!(matches!(around(&own, None), Err(NoPlace::NotOurs(_))), "{own}");
        }
        let own = format!("/agents/all/{ID}/inner");
        assert_eq!(around(&own, Some("/agents/")).unwrap(), ("/agents".into(), "/agents/all".into()));
        for named in ["/", "/age", "/others", &own] {
            assert!(matches!(around(&own, Some(named)), Err(NoPlace::Outside { .. })), "{named}");
        }
    }
}
