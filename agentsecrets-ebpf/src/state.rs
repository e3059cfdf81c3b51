//! What the programs remember, and what user space told them. A socket's own memory lives in the
//! socket, so it goes when the socket goes; only what user space must find is in a map with keys.

use core::ffi::c_void;
use core::ptr;

use agentsecrets_ebpf::{Flow, Inbound, Origin};
use aya_ebpf::bindings::{__sk_buff, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_sk_storage_get, bpf_skb_ancestor_cgroup_id,
};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{HashMap, LruHashMap};

/// A socket that was born in the agent's cgroup. To have one of these is the mark of that birth.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Socket {
    /// What it asked for last.
    pub origin: Origin,
    /// One of the constants below.
    pub way: u32,
    /// Zero.
    pub padding: u32,
    /// The agent that made it: the id of its cgroup.
    pub agent: u64,
}

/// Nothing asked yet, or straight to the listener: no record.
pub const NOWHERE: u32 = 0;
/// Sent to the listener; `origin` is complete.
pub const LISTENER: u32 = 1;
/// Sent to the resolver; `origin` holds address and port.
pub const RESOLVER: u32 = 2;
/// To a listening socket of the agent's own.
pub const OWN: u32 = 3;

#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// Connections on their way to the listener. Not an LRU: an agent must not push out another's record,
/// so a full map is a refusal.
#[map]
pub static FLOWS: HashMap<Flow, Origin> = HashMap::with_max_entries(65_536, 0);

/// A direction of an own connection that has asked: only its SYN may pass.
pub const ASKED: u8 = 0;
/// The direction from which the answer is due: only its SYN-ACK may pass, and opens both.
pub const ANSWERS: u8 = 1;
/// A direction of an own connection whose two ends are known to be the agent's.
pub const OPEN: u8 = 2;

/// Directions of the agent's connections to itself, and how far each has come.
#[map]
pub static OWN_FLOWS: LruHashMap<Flow, u8> = LruHashMap::with_max_entries(65_536, 0);

/// The agents' ports from which answers may leave.
#[map]
static INBOUND: HashMap<Inbound, u8> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Our own cgroups, where they stand beside agents'.
#[map]
pub static OURS: HashMap<u64, u8> = HashMap::with_max_entries(16, 0);

#[unsafe(no_mangle)]
static LISTENER_PORT: u16 = 0;
#[unsafe(no_mangle)]
static DNS_PORT: u16 = 0;
#[unsafe(no_mangle)]
static EGRESS_NETNS: u32 = 0;
#[unsafe(no_mangle)]
static AGENT_LEVEL: u32 = 0;
#[unsafe(no_mangle)]
static HOOKED_LEVEL: u32 = 0;
#[unsafe(no_mangle)]
static BESIDE: u32 = 0;
#[unsafe(no_mangle)]
static PID_NAMESPACE: [u64; 2] = [0; 2];
#[unsafe(no_mangle)]
static OFFSETS: [u32; 8] = [0; 8];

/// The same connection, from its other end.
#[inline(always)]
pub fn reverse(flow: &Flow) -> Flow {
    Flow {
        netns: flow.netns,
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        padding: [0; 4],
    }
}

/// The listener's port, in host byte order.
#[inline(always)]
pub fn listener_port() -> u16 {
    // SAFETY: a live static; volatile because user space writes it before loading.
    unsafe { ptr::read_volatile(&raw const LISTENER_PORT) }
}

/// The resolver's port, in host byte order.
#[inline(always)]
pub fn dns_port() -> u16 {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(&raw const DNS_PORT) }
}

/// Whether own flows are told apart by network namespace. Where they are not, a program that the verifier
/// reads never reaches the call that it does not know.
#[inline(always)]
pub fn egress_netns() -> bool {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(&raw const EGRESS_NETNS) != 0 }
}

/// How deep agents' cgroups are; 0 where all are one agent.
#[inline(always)]
fn agent_level() -> u32 {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(&raw const AGENT_LEVEL) }
}

/// Whether policy opened `port` of the agent whose socket sends a packet.
///
/// # Safety
/// `skb` is the context of a program that sees a packet leave.
#[inline(always)]
pub unsafe fn is_inbound(skb: *mut __sk_buff, port: u16) -> bool {
    // SAFETY: a live static; volatile because user space writes it before loading.
    let level = unsafe { ptr::read_volatile(&raw const HOOKED_LEVEL) };
    if level == 0 {
        return is_open(0, port);
    }
    // Pods of the best quality of service are a folder nearer to the root than the others.
    // SAFETY: the context, as the caller says.
    let of = |level: u32| unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
    is_open(of(level), port) || is_open(of(level + 1), port)
}

#[inline(always)]
fn is_open(cgroup: u64, port: u16) -> bool {
    // SAFETY: the value is one byte that nobody reads.
    unsafe { INBOUND.get(Inbound { cgroup, port, padding: [0; 6] }) }.is_some()
}

/// Whether our own processes are hooked too.
#[inline(always)]
fn beside() -> bool {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(&raw const BESIDE) != 0 }
}

/// Device and inode of the pid namespace in which processes can be looked at.
#[inline(always)]
pub fn pid_namespace() -> (u64, u64) {
    let namespace = (&raw const PID_NAMESPACE).cast::<u64>();
    // SAFETY: as above, and both are in bounds.
    unsafe { (ptr::read_volatile(namespace), ptr::read_volatile(namespace.add(1))) }
}

/// The agent that the current process belongs to.
#[inline(always)]
pub fn agent() -> u64 {
    let level = agent_level();
    // SAFETY: a helper without pointers.
    if level == 0 { 0 } else { unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) } }
}

/// Whether the current process is ours, and not asking what would become of an agent.
#[inline(always)]
pub fn is_us() -> bool {
    beside() && is_ours(agent())
}

/// Whether the socket that sends a packet was made by us.
///
/// # Safety
/// `skb` is the context of a program that sees a packet leave.
#[inline(always)]
pub unsafe fn sent_by_us(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context, as the caller says.
    beside() && is_ours(unsafe { bpf_skb_ancestor_cgroup_id(skb, agent_level() as i32) })
}

#[inline(always)]
fn is_ours(cgroup: u64) -> bool {
    // SAFETY: the value is one byte that nobody reads.
    cgroup != 0 && unsafe { OURS.get(cgroup) }.is_some()
}

/// The offset of the `INDEX`th of `agentsecrets_ebpf::MEMBERS`.
#[inline(always)]
pub fn offset<const INDEX: usize>() -> u64 {
    const { assert!(INDEX < 8) };
    // SAFETY: as above, and the index is in bounds.
    unsafe { u64::from(ptr::read_volatile((&raw const OFFSETS).cast::<u32>().add(INDEX))) }
}

/// The memory of `sk`, if it has one.
///
/// # Safety
/// `sk` is a socket pointer that the verifier knows to be one, or null.
#[inline(always)]
pub unsafe fn socket(sk: *mut c_void) -> Option<&'static mut Socket> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: the kernel answers with null or a value of the map's type that lives as long as the
    // program runs.
    unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk, ptr::null_mut(), 0)
            .cast::<Socket>()
            .as_mut()
    }
}

/// The memory of `sk`, made if need be.
///
/// # Safety
/// As for [`socket`], and `sk` is not null.
#[inline(always)]
pub unsafe fn remember(sk: *mut c_void) -> Option<&'static mut Socket> {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as above.
    unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk, ptr::null_mut(), create)
            .cast::<Socket>()
            .as_mut()
    }
}
