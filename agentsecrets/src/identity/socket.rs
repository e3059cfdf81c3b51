//! Who is at the other end of a connection of this machine, where no kernel program of ours recorded it: the
//! system is asked, one file a system. What the caller says of itself counts for nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use super::system::{System, own_uid};
use super::{Caller, IdentityError, Process, Standing};

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The caller's.
    pub theirs: SocketAddr,
    /// Ours.
    pub ours: SocketAddr,
}

/// A system that can tell which process holds the caller's end.
pub trait Neighbourhood: Send + Sync {
    /// That process. Blocks.
    fn process(&self, ends: Ends) -> Result<Process, IdentityError>;
}

/// Identifies the programs of one user.
pub struct Neighbours {
    system: Arc<dyn Neighbourhood>,
    uid: u32,
}

impl Neighbours {
    /// The programs of the user as whom this process runs, by what `witness` sees.
    #[cfg(target_os = "linux")]
    pub fn seen_by(witness: Arc<crate::identity::inspector::Witness>) -> std::io::Result<Self> {
        Ok(Self { system: Arc::new(System::seen_by(witness)?), uid: own_uid() })
    }

    /// The programs of the user as whom this process runs.
    #[cfg(not(target_os = "linux"))]
    pub fn of_this_system() -> Self {
        Self { system: Arc::new(System::default()), uid: own_uid() }
    }

    /// Who is at the other end of a connection, if it is a program of the same user.
    pub async fn identify(&self, ends: Ends) -> Result<Caller, IdentityError> {
        let system = self.system.clone();
        let asked = tokio::task::spawn_blocking(move || system.process(ends)).await;
        let process = asked.map_err(std::io::Error::other)??;
        if process.uid != self.uid {
            return Err(IdentityError::OtherUser);
        }
        let standing = Standing::default();
        Ok(Caller { process: Arc::new(process), agent: None, session: "".into(), is_ours: true, standing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Somebody(u32);

    impl Neighbourhood for Somebody {
        fn process(&self, _ends: Ends) -> Result<Process, IdentityError> {
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
    async fn a_program_of_another_user_is_refused() {
        let ends = Ends { theirs: ([127, 0, 0, 1], 5).into(), ours: ([127, 0, 0, 1], 6).into() };
        let identify = |uid| async move {
            Neighbours { system: Arc::new(Somebody(uid)), uid: 1000 }.identify(ends).await
        };
        let caller = identify(1000).await.unwrap();
        assert!(caller.is_ours && caller.session.is_empty() && &*caller.isolation() == "7@1");
        assert!(matches!(identify(0).await, Err(IdentityError::OtherUser)));
    }
}
