//! `connect`: TCP goes to the listener, or to the resolver when it asks for port 53, or stays with the
//! agent when the agent itself listens there. UDP goes to the resolver or nowhere.

use core::ffi::c_void;
use core::mem::zeroed;

use agentsecrets_ebpf::Origin;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::address::{self, Words};
use crate::snapshot;
use crate::state::{self, dns_port, listener_port};

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const TCP_LISTEN: u32 = 10;
const DNS: u16 = 53;
const ALLOW: i32 = 1;
const DENY: i32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn as_connect4(ctx: SockAddrContext) -> i32 {
    if connect::<false>(&ctx).is_some() { ALLOW } else { DENY }
}

#[cgroup_sock_addr(connect6)]
pub fn as_connect6(ctx: SockAddrContext) -> i32 {
    if connect::<true>(&ctx).is_some() { ALLOW } else { DENY }
}

#[inline(always)]
fn connect<const SIX: bool>(ctx: &SockAddrContext) -> Option<()> {
    let raw = ctx.sock_addr;
    // SAFETY: the context of a program of this family.
    let (asked, port) = unsafe { address::read::<SIX>(raw) };
    if asked != address::SELF_TEST && state::is_us() {
        return Some(());
    }
    // SAFETY: the context's socket, which the verifier knows.
    let socket = unsafe { state::remember((*raw).__bindgen_anon_1.sk.cast()) }?;
    socket.way = state::NOWHERE;
    // SAFETY: a field of the context.
    let protocol = unsafe { (*raw).protocol };
    if port == DNS && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) {
        socket.origin.address = address::to_bytes(&asked);
        socket.origin.port = port;
        socket.way = state::RESOLVER;
        // SAFETY: connect may rewrite its destination.
        unsafe { address::write::<SIX>(raw, &address::ours(&asked), dns_port()) };
        return Some(());
    }
    if protocol != IPPROTO_TCP {
        return None;
    }
    if address::is_ours(&asked) && port == listener_port() {
        return Some(());
    }
    if address::is_loopback(&asked) && is_own(ctx, &asked, port, socket.agent) {
        socket.way = state::OWN;
        return Some(());
    }
    socket.origin =
        Origin { snapshot: snapshot::take()?, address: address::to_bytes(&asked), port, padding: [0; 6] };
    socket.way = state::LISTENER;
    // SAFETY: as above.
    unsafe { address::write::<SIX>(raw, &address::ours(&asked), listener_port()) };
    Some(())
}

/// Whether the socket that would answer there was made by the same agent.
#[inline(always)]
fn is_own(ctx: &SockAddrContext, asked: &Words, port: u16, agent: u64) -> bool {
    // SAFETY: all zeroes is a tuple.
    let mut tuple: bpf_sock_tuple = unsafe { zeroed() };
    let size = if address::is_mapped(asked) {
        let at = if asked[3] == 0 { address::OUR4[3] } else { asked[3] };
        tuple.__bindgen_anon_1.ipv4.saddr = at;
        tuple.__bindgen_anon_1.ipv4.daddr = at;
        tuple.__bindgen_anon_1.ipv4.dport = port.to_be();
        12
    } else {
        tuple.__bindgen_anon_1.ipv6.saddr = address::OUR6;
        tuple.__bindgen_anon_1.ipv6.daddr = address::OUR6;
        tuple.__bindgen_anon_1.ipv6.dport = port.to_be();
        36
    };
    // SAFETY: the tuple lives on the stack and `size` is within it; a socket that was found is released
    // on every path.
    unsafe {
        let found = bpf_sk_lookup_tcp(ctx.as_ptr(), &raw mut tuple, size, BPF_F_CURRENT_NETNS as u64, 0);
        if found.is_null() {
            return false;
        }
        let listens = (*found).state == TCP_LISTEN;
        let own =
            listens && state::socket(found.cast::<c_void>()).is_some_and(|socket| socket.agent == agent);
        bpf_sk_release(found.cast());
        own
    }
}
