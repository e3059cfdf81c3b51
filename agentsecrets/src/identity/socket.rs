//! Identifies the peer of a local connection that no kernel program recorded. The system is asked, with one
//! file per system. The caller's own claims count for nothing.

use std::sync::Arc;

pub use super::peer::{PeerLookup, SocketAddrs};
use super::system::{SystemPeers, own_uid};
use super::{Caller, CallerAttributes, IdentityError};

/// Identifies the programs of one user.
pub struct LocalPeers {
    system: Arc<dyn PeerLookup>,
    uid: u32,
}

impl LocalPeers {
    /// The programs of the user of this process, inspected by `inspector`.
    #[cfg(target_os = "linux")]
    pub fn seen_by(inspector: Arc<crate::identity::inspector::ProcessInspector>) -> std::io::Result<Self> {
        Ok(Self { system: Arc::new(SystemPeers::seen_by(inspector)?), uid: own_uid() })
    }

    /// The programs of the user as whom this process runs.
    #[cfg(not(target_os = "linux"))]
    pub fn of_this_system() -> Self {
        Self { system: Arc::new(SystemPeers::default()), uid: own_uid() }
    }

    /// Identifies the peer of a connection, if it is a program of the same user.
    pub async fn identify(&self, ends: SocketAddrs) -> Result<Caller, IdentityError> {
        let system = self.system.clone();
        let asked = tokio::task::spawn_blocking(move || system.process(ends)).await;
        let process = asked.map_err(std::io::Error::other)??;
        if process.uid != self.uid {
            return Err(IdentityError::OtherUser);
        }
        let attributes = CallerAttributes::default();
        Ok(Caller { process: Arc::new(process), agent: None, session: "".into(), is_ours: true, attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Process;

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
