//! `getpeername`: the agent sees the peer it asked for, not our door.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::address;
use crate::state;

#[cgroup_sock_addr(getpeername4)]
pub fn as_getpeername4(ctx: SockAddrContext) -> i32 {
    restore::<false>(&ctx);
    1
}

#[cgroup_sock_addr(getpeername6)]
pub fn as_getpeername6(ctx: SockAddrContext) -> i32 {
    restore::<true>(&ctx);
    1
}

#[inline(always)]
fn restore<const SIX: bool>(ctx: &SockAddrContext) {
    let raw = ctx.sock_addr;
    // SAFETY: the context's socket, which the verifier knows.
    let Some(socket) = (unsafe { state::socket((*raw).__bindgen_anon_1.sk.cast()) }) else { return };
    if socket.way == state::LISTENER || socket.way == state::RESOLVER {
        let asked = address::from_bytes(&socket.origin.address);
        // SAFETY: getpeername may rewrite its answer.
        unsafe { address::write::<SIX>(raw, &asked, socket.origin.port) };
    }
}
