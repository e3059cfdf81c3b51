//! The three-way comparison of a secret: here, in the workspace, and at the last synchronisation. Values are compared
//! by keyed digests and versions.

/// A secret in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The last version.
    pub version: u64,
    /// The digest of its value, or `None` if it deletes the secret.
    pub digest: Option<[u8; 32]>,
}

/// A secret at the last synchronisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The version in the workspace.
    pub version: u64,
    /// The digest of the value on both sides, or `None` if neither had one.
    pub digest: Option<[u8; 32]>,
}

/// The result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Both sides are equal.
    InSync,
    /// Only this machine has it; a push adds it.
    LocalOnly,
    /// Only the workspace has it; a pull adds it.
    RemoteOnly,
    /// It was changed here; a push sends it.
    ChangedHere,
    /// It was changed in the workspace; a pull fetches it.
    ChangedThere,
    /// It was deleted here; a push deletes it.
    DeletedHere,
    /// It was deleted in the workspace; a pull deletes it.
    DeletedThere,
    /// Both sides changed it: a person chooses one.
    Conflict,
}

impl Status {
    /// Whether a push sends it.
    pub fn is_pushed(self) -> bool {
        matches!(self, Self::LocalOnly | Self::ChangedHere | Self::DeletedHere)
    }

    /// Whether a pull fetches it.
    pub fn is_pulled(self) -> bool {
        matches!(self, Self::RemoteOnly | Self::ChangedThere | Self::DeletedThere)
    }
}

/// Compares a secret.
pub fn compare(local: Option<[u8; 32]>, remote: Option<Remote>, base: Option<Base>) -> Status {
    let there = remote.and_then(|remote| remote.digest);
    if local == there {
        return Status::InSync;
    }
    let changed_here = local != base.and_then(|base| base.digest);
    let changed_there = remote.map(|remote| remote.version) != base.map(|base| base.version);
    match (changed_here, changed_there) {
        (true, true) if there.is_none() && base.is_none() => Status::LocalOnly,
        (true, true) => Status::Conflict,
        (true, false) if local.is_none() => Status::DeletedHere,
        (true, false) if there.is_none() => Status::LocalOnly,
        (true, false) => Status::ChangedHere,
        (false, _) if local.is_none() => Status::RemoteOnly,
        (false, _) if there.is_none() => Status::DeletedThere,
        (false, _) => Status::ChangedThere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Option<[u8; 32]> = Some([1; 32]);
    const B: Option<[u8; 32]> = Some([2; 32]);

    fn there(version: u64, digest: Option<[u8; 32]>) -> Option<Remote> {
        Some(Remote { version, digest })
    }

    fn base(version: u64, digest: Option<[u8; 32]>) -> Option<Base> {
        Some(Base { version, digest })
    }

    #[test]
    fn one_sided_change_has_a_direction_and_two_sided_is_a_conflict() {
        for (local, remote, base, expected) in [
            (A, None, None, Status::LocalOnly),
            (None, there(1, A), None, Status::RemoteOnly),
            (A, there(1, A), None, Status::InSync),
            (A, there(1, B), None, Status::Conflict),
            (B, there(1, A), base(1, A), Status::ChangedHere),
            (A, there(2, B), base(1, A), Status::ChangedThere),
            (B, there(2, B), base(1, A), Status::InSync),
            (Some([3; 32]), there(2, B), base(1, A), Status::Conflict),
            (None, there(1, A), base(1, A), Status::DeletedHere),
            (A, there(2, None), base(1, A), Status::DeletedThere),
            (None, there(2, None), base(1, A), Status::InSync),
            (None, there(2, B), base(1, A), Status::Conflict),
            (B, there(2, None), base(1, A), Status::Conflict),
            (A, there(2, None), base(2, None), Status::LocalOnly),
            (None, there(3, A), base(2, None), Status::RemoteOnly),
        ] {
            assert_eq!(compare(local, remote, base), expected, "{local:?} {remote:?} {base:?}");
        }
    }

    proptest! {
        #[test]
        fn no_status_is_both_pushed_and_pulled(
            local in prop::option::of(0_u8..3),
            remote in prop::option::of((1_u64..4, prop::option::of(0_u8..3))),
            before in prop::option::of((1_u64..4, prop::option::of(0_u8..3))),
        ) {
            let digest = |byte: u8| [byte; 32];
            let remote = remote.map(|(version, byte)| Remote { version, digest: byte.map(digest) });
            let before = before.map(|(version, byte)| Base { version, digest: byte.map(digest) });
            let status = compare(local.map(digest), remote, before);
            prop_assert!(!(status.is_pushed() && status.is_pulled()));
            let equal = local.map(digest) == remote.and_then(|remote| remote.digest);
            prop_assert_eq!(equal, status == Status::InSync);
        }
    }
}
