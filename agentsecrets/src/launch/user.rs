//! Chooses the agent's user. It is never uid 0 of the host: such a process, even without capabilities, may
//! write root's files.

use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};

/// The user of the agent's processes, as the host sees it.
#[derive(Debug, Clone)]
pub(crate) struct AgentUser {
    /// Never 0.
    pub(crate) uid: Uid,
    /// The only group; never 0.
    pub(crate) gid: Gid,
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    /// Whether HOME is created for this run alone.
    pub(crate) private_home: bool,
    /// Whether the agent sees itself as uid 0, in a user namespace without any other id.
    pub(crate) appears_as_root: bool,
}

/// Reasons that there is no such user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is no such name or number.
    #[error("there is no user '{0}'")]
    Unknown(String),
    /// The user database could not be read.
    #[error("cannot look up the user '{0}': {1}")]
    Unreadable(String, nix::Error),
    /// Its group is root's.
    #[error("the user '{0}' belongs to root's own group")]
    RootGroup(String),
}

/// The user who called `sudo`, unless it was root.
pub(crate) fn sudo_caller() -> Option<User> {
    let uid: u32 = std::env::var("SUDO_UID").ok()?.parse().ok()?;
    if uid == 0 { None } else { User::from_uid(Uid::from_raw(uid)).ok()? }
}

pub(crate) fn sudo_caller_home() -> Option<PathBuf> {
    sudo_caller().map(|user| user.dir)
}

pub(crate) fn sudo_caller_uid() -> Option<u32> {
    sudo_caller().map(|user| user.uid.as_raw())
}

/// The user `uid`, or a placeholder if there is no such account.
pub(crate) fn user_or_placeholder(uid: u32, gid: u32) -> User {
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
    /// Chooses the user of `run --user`, otherwise sudo's caller, otherwise `nobody`. `private` is the HOME
    /// of a user that has none.
    pub(crate) fn choose(
        named: Option<&str>,
        sudo: Option<&User>,
        private: &Path,
    ) -> Result<Self, UserError> {
        let user = match (named, sudo) {
            (Some(name), _) => find_user(name)?,
            (None, Some(user)) => user.clone(),
            (None, None) => find_user("nobody")?,
        };
        let seems_root = user.uid.is_root();
        let user = if seems_root { find_user("nobody")? } else { user };
        if user.gid.as_raw() == 0 {
            return Err(UserError::RootGroup(user.name));
        }
        let owner = std::fs::metadata(&user.dir).ok().map(|home| std::os::unix::fs::MetadataExt::uid(&home));
        let private_home = owner != Some(user.uid.as_raw());
        let home = if private_home { private.to_path_buf() } else { user.dir };
        let name = if seems_root { "root".to_string() } else { user.name };
        Ok(Self { uid: user.uid, gid: user.gid, name, home, private_home, appears_as_root: seems_root })
    }
}

fn find_user(name: &str) -> Result<User, UserError> {
    let found = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    found
        .map_err(|error| UserError::Unreadable(name.into(), error))?
        .ok_or_else(|| UserError::Unknown(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(named: Option<&str>, sudo: Option<&User>) -> AgentUser {
        AgentUser::choose(named, sudo, Path::new("/tmp/private")).unwrap()
    }

    #[test]
    fn root_without_sudo_becomes_nobody() {
        let user = choose(None, None);
        assert_ne!(user.uid.as_raw(), 0);
        assert!(user.private_home && !user.appears_as_root);
        assert_eq!(user.home, Path::new("/tmp/private"));
    }

    #[test]
    fn root_is_nobody_on_the_host() {
        for name in ["root", "0"] {
            let user = choose(Some(name), None);
            assert!(user.appears_as_root && !user.uid.is_root(), "{name}");
            assert_eq!(user.name, "root");
        }
    }

    #[test]
    fn sudo_caller_is_chosen() {
        let daemon = User::from_name("daemon").unwrap().unwrap();
        assert_eq!(choose(None, Some(&daemon)).uid, daemon.uid);
        assert_eq!(choose(Some("nobody"), Some(&daemon)).name, "nobody");
    }

    #[test]
    fn unknown_user_is_refused() {
        assert!(AgentUser::choose(Some("no-such-user"), None, Path::new("/tmp")).is_err());
    }
}
