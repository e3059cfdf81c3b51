//! The map keys and values that the kernel programs and the interceptor share. Plain integers in a
//! fixed layout, so that both sides read the same bytes.
#![cfg_attr(not(test), no_std)]

/// Who asked for a connection, as the kernel saw it inside `connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Snapshot {
    /// When the process started, in nanoseconds since boot (`task_struct.start_boottime` of its leader).
    pub start_boottime: u64,
    /// Inode of the executable file that was running.
    pub exe_inode: u64,
    /// The cgroup's id, which is the inode of its folder.
    pub cgroup: u64,
    /// Device of the executable, as the kernel encodes it (`major << 20 | minor`).
    pub exe_device: u32,
    /// Process id (thread group) in the initial pid namespace.
    pub tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Process id in the pid namespace that user space named; 0 where it named none or the process is in
    /// another.
    pub tgid_here: u32,
    /// Zero.
    pub padding: u32,
}

/// The connection that an agent asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Origin {
    /// Who asked.
    pub snapshot: Snapshot,
    /// The address it asked for; IPv4 as IPv4-mapped IPv6. Network byte order.
    pub address: [u8; 16],
    /// The port it asked for, in host byte order.
    pub port: u16,
    /// Zero.
    pub padding: [u8; 6],
}

/// A TCP flow as the listener sees it: IPv4 as IPv4-mapped IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Flow {
    /// Cookie of the network namespace (`SO_NETNS_COOKIE`).
    pub netns: u64,
    /// The agent's end. Network byte order.
    pub source: [u8; 16],
    /// Our end. Network byte order.
    pub destination: [u8; 16],
    /// The agent's port, in host byte order.
    pub source_port: u16,
    /// Our port, in host byte order.
    pub destination_port: u16,
    /// Zero.
    pub padding: [u8; 4],
}

/// A port of an agent from which answers may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Inbound {
    /// The id of the hooked cgroup whose port it is; 0 where one cgroup alone is hooked.
    pub cgroup: u64,
    /// The port, in host byte order.
    pub port: u16,
    /// Zero.
    pub padding: [u8; 6],
}

/// An address that leads nowhere (192.0.2.0/24 is for documentation): what we send there from our own cgroup
/// is treated as an agent's, so that we can see whether the hooks are in force.
pub const SELF_TEST: [u8; 4] = [192, 0, 2, 1];

/// Names of the globals that user space writes before loading. The programs declare statics of these
/// names.
pub mod globals {
    /// `u16`: the listener's port.
    pub const LISTENER_PORT: &str = "LISTENER_PORT";
    /// `u16`: the resolver's port.
    pub const DNS_PORT: &str = "DNS_PORT";
    /// `u32`: 1 if the kernel tells the egress program the network namespace, which it does since 6.15.
    pub const EGRESS_NETNS: &str = "EGRESS_NETNS";
    /// `u32`: how deep the cgroups are that stand directly below the one that is hooked, each an agent of its
    /// own (or ourselves); 0 where that is not known, and all are one agent.
    pub const AGENT_LEVEL: &str = "AGENT_LEVEL";
    /// `u32`: how deep the hooked cgroups are, or one less, where one set of programs hooks many; 0 where it
    /// hooks one.
    pub const HOOKED_LEVEL: &str = "HOOKED_LEVEL";
    /// `u32`: 1 if our own processes are below the hooked cgroup too, in a cgroup that `OURS` names.
    pub const BESIDE: &str = "BESIDE";
    /// `[u64; 2]`: device and inode of the pid namespace in which processes can be looked at; zeroes for
    /// none.
    pub const PID_NAMESPACE: &str = "PID_NAMESPACE";
    /// `[u32; 8]`: byte offsets of the members in [`MEMBERS`](crate::MEMBERS), in that order.
    pub const OFFSETS: &str = "OFFSETS";
}

/// The members of kernel structures whose offsets the snapshot needs: structure, member.
pub const MEMBERS: [(&str, &str); 8] = [
    ("task_struct", "group_leader"),
    ("task_struct", "start_boottime"),
    ("task_struct", "mm"),
    ("mm_struct", "exe_file"),
    ("file", "f_inode"),
    ("inode", "i_ino"),
    ("inode", "i_sb"),
    ("super_block", "s_dev"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_no_hidden_bytes() {
        assert_eq!(size_of::<Snapshot>(), 8 + 8 + 8 + 6 * 4);
        assert_eq!(size_of::<Origin>(), size_of::<Snapshot>() + 16 + 2 + 6);
        assert_eq!(size_of::<Flow>(), 8 + 16 + 16 + 2 + 2 + 4);
        assert_eq!(size_of::<Inbound>(), 8 + 2 + 6);
    }
}
