//! Who is at the other end of a connection of this machine, where no kernel program of ours recorded it: the
//! system is asked, one file a system. What the caller says of itself counts for nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use super::system::{LinuxPeers, own_uid};
use super::{Caller, CallerAttributes, IdentityError, Process};

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct SocketAddrs {
    /// The caller's.
    pub theirs: SocketAddr,
    /// Ours.
    pub ours: SocketAddr,
}

/// A system that can tell which process holds the caller's end.
pub trait PeerLookup: Send + Sync {
    /// That process. Blocks.
    fn process(&self, ends: SocketAddrs) -> Result<Process, IdentityError>;
}

/// Identifies the programs of one user.
pub struct LocalPeers {
    system: Arc<dyn PeerLookup>,
    uid: u32,
}

impl LocalPeers {
    /// The programs of the user as whom this process runs, by what `witness` sees.
    #[cfg(target_os = "linux")]
    pub fn seen_by(witness: Arc<crate::identity::inspector::ProcessInspector>) -> std::io::Result<Self> {
        Ok(Self { system: Arc::new(LinuxPeers::seen_by(witness)?), uid: own_uid() })
    }

    /// The programs of the user as whom this process runs.
    #[cfg(not(target_os = "linux"))]
    pub fn of_this_system() -> Self {
        Self { system: Arc::new(LinuxPeers::default()), uid: own_uid() }
    }

    /// Who is at the other end of a connection, if it is a program of the same user.
    pub async fn identify(&self, ends: SocketAddrs) -> Result<Caller, IdentityError> {
        let system = self.system.clone();
        let asked = tokio::task::spawn_blocking(move || system.process(ends)).await;
        let process = asked.map_err(std::io::Error::other)??;
        if process.uid != self.uid {
            return Err(IdentityError::OtherUser);
        }
        let standing = CallerAttributes::default();
        Ok(Caller {
            process: Arc::new(process),
            agent: None,
            session: "".into(),
            is_ours: true,
            attributes: standing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Somebody(u32);

    impl PeerLookup for Somebody {
        fn process(&self, _ends: SocketAddrs) -> Result<Process, IdentityError> {
            let sha256 = String::new();
            Ok(Process {
                pid: 7,
                start_time: 1,
                exe: "/x".into(),
                sha256,
                uid: self.0,
                cgroup: "/".into(),
                image: None,
                here: true,
            })
        }
    }

    #[tokio::test]
    async fn program_of_another_user_is_refused() {
        let ends = SocketAddrs { theirs: ([127, 0, 0, 1], 5).into(), ours: ([127, 0, 0, 1], 6).into() };
        let identify = |uid| async move {
            LocalPeers { system: Arc::new(Somebody(uid)), uid: 1000 }.identify(ends).await
        };
        let caller = identify(1000).await.unwrap();
        assert!(caller.is_ours && caller.session.is_empty() && &*caller.isolation() == "7@1");
        assert!(matches!(identify(0).await, Err(IdentityError::OtherUser)));
    }
}
