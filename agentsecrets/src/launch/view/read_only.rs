//! Makes files read-only that would run later, outside the sandbox, for the person. A missing file cannot be
//! protected without leaving one behind, so it is only reported.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::spec::View;
use crate::launch::mounts;
use crate::launch::user::AgentUser;

/// Files and folders in HOME that a login, a shell, a desktop, SSH or git acts upon.
const IN_HOME: &[&str] = &[
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".config/agentsecrets",
    ".config/autostart",
    ".config/environment.d",
    ".config/fish",
    ".config/git",
    ".config/systemd",
    ".gitconfig",
    ".local/share/agentsecrets",
    ".local/share/systemd",
    ".local/state/agentsecrets",
    ".pam_environment",
    ".profile",
    ".ssh",
    ".xinitrc",
    ".xprofile",
    ".xsession",
    ".zlogin",
    ".zlogout",
    ".zprofile",
    ".zshenv",
    ".zshrc",
];

const CRONTABS: &[&str] = &["/var/spool/cron", "/var/spool/at"];

/// Makes all of it read-only, and keeps the folders on the way to it, and to what is ours, from being
/// renamed, which would leave room for another of the same name.
pub(super) fn protect(view: &View<'_>) -> io::Result<()> {
    // A private HOME is removed at the end; nothing in it runs later.
    let mut paths = if view.user.private_home { Vec::new() } else { in_home(view.user) };
    paths.extend(CRONTABS.iter().map(PathBuf::from));
    paths.extend(of_repository(view.folder));
    paths.extend(of_project(view.folder));
    let paths = real(&paths);
    let ours = real(&view.ours);
    let ways = paths.iter().chain(&ours).flat_map(|path| movable_ancestors(path, view.user.uid));
    // In this order a folder comes before what it holds.
    for way in ways.collect::<BTreeSet<&Path>>() {
        mounts::bind_to_self(way)?;
    }
    for path in paths {
        mounts::bind_read_only(&path)?;
    }
    Ok(())
}

/// Those of `paths` that exist, without links.
fn real(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    paths.iter().filter_map(|path| path.canonicalize().ok()).collect()
}

/// Paths that do not exist now and would run later if the agent created them. The launcher compares them
/// before and after a run.
pub(crate) fn unprotected(user: &AgentUser, folder: &Path) -> Vec<PathBuf> {
    let mut paths = if user.private_home { Vec::new() } else { in_home(user) };
    paths.extend(of_repository(folder));
    paths.extend(of_project(folder));
    paths.retain(|path| fs::symlink_metadata(path).is_err());
    paths
}

fn in_home(user: &AgentUser) -> Vec<PathBuf> {
    IN_HOME.iter().map(|name| user.home.join(name)).collect()
}

/// The hooks and the configuration of the repository that holds `folder`.
fn of_repository(folder: &Path) -> Vec<PathBuf> {
    let Some(git) = folder.ancestors().map(|at| at.join(".git")).find(|git| git.exists()) else {
        return Vec::new();
    };
    let common = common_folder(&git).unwrap_or_else(|| git.clone());
    let mut paths = vec![common.join("hooks"), common.join("config"), common.join("config.worktree")];
    if git.is_file() {
        // It says where git looks for all of that.
        paths.push(git);
    }
    paths
}

/// The project file that applies in `folder`, and where a nearer one would be: it chooses whose secrets the
/// next run spends.
fn of_project(folder: &Path) -> Vec<PathBuf> {
    let above = folder.ancestors().map(|at| at.join(".agentsecrets")).find(|ours| ours.exists());
    let mut paths = vec![folder.join(".agentsecrets")];
    paths.extend(above.filter(|above| *above != folder.join(".agentsecrets")));
    paths
}

/// The folder that a work tree shares with its repository, where `git` is a file that names it.
fn common_folder(git: &Path) -> Option<PathBuf> {
    let text = git.is_file().then(|| fs::read_to_string(git).ok()).flatten()?;
    let own = git.parent()?.join(text.strip_prefix("gitdir:")?.trim());
    let common = fs::read_to_string(own.join("commondir")).ok();
    Some(common.map_or_else(|| own.clone(), |common| own.join(common.trim())))
}

/// The folders above `path` that `user` may rename.
fn movable_ancestors(path: &Path, user: Uid) -> impl Iterator<Item = &Path> {
    path.ancestors().skip(1).filter(move |folder| {
        let Some(parent) = folder.parent().and_then(|parent| fs::metadata(parent).ok()) else { return false };
        let sticky = parent.mode() & 0o1000 != 0;
        let own = fs::metadata(folder).is_ok_and(|folder| folder.uid() == user.as_raw());
        parent.uid() == user.as_raw() || (parent.mode() & 0o022 != 0 && (!sticky || own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_is_found_from_subfolder() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("src/deep");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(folder.path().join(".git/hooks")).unwrap();
        assert!(of_repository(&deep).contains(&folder.path().join(".git/hooks")));
    }

    #[test]
    fn work_tree_protects_shared_repository() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main/.git");
        let own = main.join("worktrees/side");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("commondir"), "../..\n").unwrap();
        let side = folder.path().join("side");
        fs::create_dir(&side).unwrap();
        fs::write(side.join(".git"), format!("gitdir: {}\n", own.display())).unwrap();
        let paths = of_repository(&side);
        assert!(paths.contains(&own.join("../..").join("hooks")), "{paths:?}");
        assert!(paths.contains(&side.join(".git")), "{paths:?}");
    }

    #[test]
    fn movable_ancestors_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        fs::create_dir_all(&path).unwrap();
        let me = Uid::effective();
        let movable: Vec<_> = movable_ancestors(&path, me).collect();
        assert!(movable.contains(&folder.path().join("a").as_path()));
        assert!(!movable.contains(&Path::new("/")));
    }
}
