//! As whom the agent runs. Never as uid 0 of the host: such a process, even without capabilities, may
//! write what root owns.

use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};

/// The user of the agent's processes, as the host sees it.
#[derive(Debug, Clone)]
pub struct AgentUser {
    /// The user id, never 0.
    pub uid: Uid,
    /// The group id, never 0. It is the only group.
    pub gid: Gid,
    /// The login name.
    pub name: String,
    /// HOME.
    pub home: PathBuf,
    /// Whether HOME is made for this run alone.
    pub private_home: bool,
    /// Whether the agent is to see itself as uid 0, in a user namespace where that is all it is.
    pub seems_root: bool,
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub enum NoUser {
    /// No such name or number.
    #[error("there is no user '{0}'")]
    Unknown(String),
    /// The user database could not be read.
    #[error("cannot look up the user '{0}': {1}")]
    Unreadable(String, nix::Error),
    /// Its group is root's.
    #[error("the user '{0}' belongs to root's own group")]
    RootGroup(String),
}

/// Who called `sudo`, unless it was root.
pub fn who_called_sudo() -> Option<User> {
    let uid: u32 = std::env::var("SUDO_UID").ok()?.parse().ok()?;
    if uid == 0 { None } else { User::from_uid(Uid::from_raw(uid)).ok()? }
}

/// Their home.
pub fn home_of_who_called_sudo() -> Option<PathBuf> {
    who_called_sudo().map(|user| user.dir)
}

/// Their id.
pub fn uid_of_who_called_sudo() -> Option<u32> {
    who_called_sudo().map(|user| user.uid.as_raw())
}

/// The user `uid`, who need not have an account.
pub fn person(uid: u32, gid: u32) -> User {
    let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    known.unwrap_or_else(|| User {
        name: uid.to_string(),
        passwd: Default::default(),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        gecos: Default::default(),
        dir: PathBuf::from("/nonexistent"),
        shell: PathBuf::from("/bin/sh"),
    })
}

impl AgentUser {
    /// The user whom `run --user` names, else the one who called `sudo`, else `nobody`. `private` is where
    /// HOME is made for a user who has none.
    pub fn choose(named: Option<&str>, sudo: Option<&User>, private: &Path) -> Result<Self, NoUser> {
        let user = match (named, sudo) {
            (Some(name), _) => find(name)?,
            (None, Some(user)) => user.clone(),
            (None, None) => find("nobody")?,
        };
        let seems_root = user.uid.is_root();
        let user = if seems_root { find("nobody")? } else { user };
        if user.gid.as_raw() == 0 {
            return Err(NoUser::RootGroup(user.name));
        }
        let owner = std::fs::metadata(&user.dir).ok().map(|home| std::os::unix::fs::MetadataExt::uid(&home));
        let private_home = owner != Some(user.uid.as_raw());
        let home = if private_home { private.to_path_buf() } else { user.dir };
        let name = if seems_root { "root".to_string() } else { user.name };
        Ok(Self { uid: user.uid, gid: user.gid, name, home, private_home, seems_root })
    }
}

fn find(name: &str) -> Result<User, NoUser> {
    let found = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    found.map_err(|error| NoUser::Unreadable(name.into(), error))?.ok_or_else(|| NoUser::Unknown(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(named: Option<&str>, sudo: Option<&User>) -> AgentUser {
        AgentUser::choose(named, sudo, Path::new("/tmp/private")).unwrap()
    }

    #[test]
    fn plain_root_runs_agents_as_nobody_with_a_private_home() {
        let user = choose(None, None);
        assert_ne!(user.uid.as_raw(), 0);
        assert!(user.private_home && !user.seems_root);
        assert_eq!(user.home, Path::new("/tmp/private"));
    }

    #[test]
    fn root_by_name_or_number_is_nobody_outside() {
        for name in ["root", "0"] {
            let user = choose(Some(name), None);
            assert!(user.seems_root && !user.uid.is_root(), "{name}");
            assert_eq!(user.name, "root");
        }
    }

    #[test]
    fn a_user_who_called_sudo_stays_that_user() {
        let daemon = User::from_name("daemon").unwrap().unwrap();
        assert_eq!(choose(None, Some(&daemon)).uid, daemon.uid);
        assert_eq!(choose(Some("nobody"), Some(&daemon)).name, "nobody");
    }

    #[test]
    fn an_unknown_user_is_refused() {
        assert!(AgentUser::choose(Some("no-such-user"), None, Path::new("/tmp")).is_err());
    }
}
