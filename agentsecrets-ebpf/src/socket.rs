//! Which sockets an agent may make, which options it may set on them, and which ports it may not bind.

use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, cgroup_sockopt};
use aya_ebpf::programs::{SockAddrContext, SockContext, SockoptContext};

use crate::address;
use crate::state::{self, dns_port, listener_port};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const STREAM_TCP: (u32, u32) = (1, 6);
const DATAGRAM_UDP: (u32, u32) = (2, 17);

const IPPROTO_IP: i32 = 0;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_IPV6: i32 = 41;
const TCP_FASTOPEN_CONNECT: i32 = 30;
/// The kernel hands a program at most one page of an option.
const PAGE: i32 = 4096;

/// Plain TCP and UDP alone. The kernel has already filled in the protocol where the program asked for 0.
#[cgroup_sock(sock_create)]
pub fn as_sock_create(ctx: SockContext) -> i32 {
    if state::is_us() {
        return 1;
    }
    // SAFETY: fields of the context.
    let (family, kind) = unsafe { ((*ctx.sock).family, ((*ctx.sock).type_, (*ctx.sock).protocol)) };
    if family != AF_INET && family != AF_INET6 {
        return 0;
    }
    if kind != STREAM_TCP && kind != DATAGRAM_UDP {
        return 0;
    }
    // SAFETY: the context is the socket.
    let Some(socket) = (unsafe { state::remember(ctx.sock.cast()) }) else { return 0 };
    socket.agent = state::agent();
    1
}

/// Nothing that sends a packet another way than its destination says, that makes or takes over
/// connections without the hooks, or that has the kernel send packets in nobody's name: a group that is
/// joined is told to the whole wire.
#[cgroup_sockopt(setsockopt)]
pub fn as_setsockopt(ctx: SockoptContext) -> i32 {
    // SAFETY: fields of the context.
    let (level, option, length) =
        unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname, (*ctx.sockopt).optlen) };
    if state::is_us() {
        return 1;
    }
    if is_denied(level, option) {
        return 0;
    }
    if level == IPPROTO_TCP && option == TCP_FASTOPEN_CONNECT {
        // Such a socket sends its SYN long after `connect` was judged. -1 tells the caller that it was
        // done, and does nothing: the connection is then opened at once.
        // SAFETY: a writable field of the context.
        unsafe { (*ctx.sockopt).optlen = -1 };
    } else if length > PAGE {
        // 0 tells the kernel to use what the caller gave; otherwise a long value is an error.
        // SAFETY: as above.
        unsafe { (*ctx.sockopt).optlen = 0 };
    }
    1
}

#[inline(always)]
fn is_denied(level: i32, option: i32) -> bool {
    match level {
        // IP_OPTIONS, IP_TRANSPARENT; ADD_MEMBERSHIP, ADD_SOURCE_MEMBERSHIP, MCAST_JOIN_GROUP and
        // MCAST_JOIN_SOURCE_GROUP
        IPPROTO_IP => matches!(option, 4 | 19 | 35 | 39 | 42 | 46),
        // TCP_REPAIR and its three companions, ULP: another protocol above or below the same socket
        IPPROTO_TCP => matches!(option, 19..=22 | 31),
        // 2292: HOPOPTS, DSTOPTS, RTHDR, PKTOPTIONS; HOPOPTS, RTHDRDSTOPTS, RTHDR, DSTOPTS; TRANSPARENT;
        // ADD_MEMBERSHIP, JOIN_ANYCAST and the two of MCAST as above
        IPPROTO_IPV6 => matches!(option, 3 | 4 | 5 | 6 | 20 | 27 | 42 | 46 | 54 | 55 | 57 | 59 | 75),
        _ => false,
    }
}

/// Our ports stay ours when we are not there to hold them.
#[cgroup_sock_addr(bind4)]
pub fn as_bind4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context of a program of this family.
    let (_, port) = unsafe { address::read::<false>(ctx.sock_addr) };
    i32::from(!is_our_port(port) || state::is_us())
}

/// As `as_bind4`.
#[cgroup_sock_addr(bind6)]
pub fn as_bind6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context of a program of this family.
    let (_, port) = unsafe { address::read::<true>(ctx.sock_addr) };
    i32::from(!is_our_port(port) || state::is_us())
}

#[inline(always)]
fn is_our_port(port: u16) -> bool {
    port == listener_port() || port == dns_port()
}
