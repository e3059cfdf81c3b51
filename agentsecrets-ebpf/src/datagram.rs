//! UDP without `connect`: to port 53 it goes to the resolver, elsewhere nowhere. The resolver's answers
//! come back under the address that was asked, since a client drops answers from another.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::address;
use crate::state::{self, dns_port};

const DNS: u16 = 53;

#[cgroup_sock_addr(sendmsg4)]
pub fn as_sendmsg4(ctx: SockAddrContext) -> i32 {
    i32::from(send::<false>(&ctx).is_some())
}

#[cgroup_sock_addr(sendmsg6)]
pub fn as_sendmsg6(ctx: SockAddrContext) -> i32 {
    i32::from(send::<true>(&ctx).is_some())
}

#[cgroup_sock_addr(recvmsg4)]
pub fn as_recvmsg4(ctx: SockAddrContext) -> i32 {
    receive::<false>(&ctx);
    1
}

#[cgroup_sock_addr(recvmsg6)]
pub fn as_recvmsg6(ctx: SockAddrContext) -> i32 {
    receive::<true>(&ctx);
    1
}

#[inline(always)]
fn send<const SIX: bool>(ctx: &SockAddrContext) -> Option<()> {
    let raw = ctx.sock_addr;
    // SAFETY: the context of a program of this family.
    let (asked, port) = unsafe { address::read::<SIX>(raw) };
    if asked != address::SELF_TEST && state::is_us() {
        return Some(());
    }
    if port == DNS {
        // SAFETY: the context's socket, which the verifier knows.
        let socket = unsafe { state::remember((*raw).__bindgen_anon_1.sk.cast()) }?;
        socket.origin.address = address::to_bytes(&asked);
        socket.origin.port = port;
        socket.way = state::RESOLVER;
        // SAFETY: sendmsg may rewrite its destination.
        unsafe { address::write::<SIX>(raw, &address::ours(&asked), dns_port()) };
        return Some(());
    }
    // A v4-mapped socket that `connect` sent to the resolver comes here again.
    (address::is_ours(&asked) && port == dns_port()).then_some(())
}

#[inline(always)]
fn receive<const SIX: bool>(ctx: &SockAddrContext) {
    let raw = ctx.sock_addr;
    // SAFETY: the context of a program of this family.
    let (from, port) = unsafe { address::read::<SIX>(raw) };
    if !address::is_ours(&from) || port != dns_port() {
        return;
    }
    // SAFETY: the context's socket, which the verifier knows.
    let Some(socket) = (unsafe { state::socket((*raw).__bindgen_anon_1.sk.cast()) }) else { return };
    if socket.way == state::RESOLVER {
        let asked = address::from_bytes(&socket.origin.address);
        // SAFETY: recvmsg may rewrite the source.
        unsafe { address::write::<SIX>(raw, &asked, socket.origin.port) };
    }
}
