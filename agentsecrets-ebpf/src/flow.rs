//! The moment before the SYN: the source port is known and nobody can have accepted yet, so what
//! `connect` remembered becomes a record that the listener finds by the addresses of the connection.

use agentsecrets_ebpf::Flow;
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;

use crate::address::{self, Words};
use crate::state::{self, FLOWS, OWN_FLOWS, egress_netns};

const TCP_CONNECT_CB: u32 = 3;
const PASSIVE_ESTABLISHED_CB: u32 = 5;
const STATE_CB: u32 = 10;
const STATE_CB_FLAG: u32 = 1 << 2;
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;
const AF_INET: u32 = 2;
const ANY: u64 = 0;

#[sock_ops]
pub fn as_sockops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        TCP_CONNECT_CB => connecting(&ctx),
        PASSIVE_ESTABLISHED_CB => watch(&ctx),
        STATE_CB if ctx.arg(1) == TCP_CLOSE => closed(&ctx),
        _ => {}
    }
    1
}

/// Whatever fails here leaves no record, and the listener refuses a connection without one.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    let flow = key(ctx);
    // SAFETY: the context's socket or null, as the verifier knows.
    let socket = unsafe { state::socket((*ctx.ops).__bindgen_anon_2.sk.cast()) };
    watch(ctx);
    match socket {
        Some(socket) if socket.way == state::LISTENER => {
            if FLOWS.insert(flow, socket.origin, ANY).is_err() {
                let _ = FLOWS.remove(flow);
            }
        }
        Some(socket) if socket.way == state::OWN => {
            let _ = FLOWS.remove(flow);
            let own = own(&flow);
            let _ = OWN_FLOWS.insert(own, state::ASKED, ANY);
            let _ = OWN_FLOWS.insert(state::reverse(&own), state::ANSWERS, ANY);
        }
        _ => {
            let _ = FLOWS.remove(flow);
        }
    }
}

/// A record outlives neither its connection nor the wait to be taken. Each end of an own connection
/// takes back its own direction; one that was never answered takes back both.
#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let flow = key(ctx);
    let _ = FLOWS.remove(flow);
    let own = own(&flow);
    let _ = OWN_FLOWS.remove(own);
    if ctx.arg(0) == TCP_SYN_SENT {
        let _ = OWN_FLOWS.remove(state::reverse(&own));
    }
}

#[inline(always)]
fn watch(ctx: &SockOpsContext) {
    let _ = ctx.set_cb_flags((ctx.cb_flags() | STATE_CB_FLAG) as i32);
}

#[inline(always)]
fn key(ctx: &SockOpsContext) -> Flow {
    let (source, destination) = ends(ctx);
    Flow {
        // SAFETY: the program's own context.
        netns: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        source: address::to_bytes(&source),
        destination: address::to_bytes(&destination),
        source_port: ctx.local_port() as u16,
        destination_port: u32::from_be(ctx.remote_port()) as u16,
        padding: [0; 4],
    }
}

/// The connection's ends, as they are on the wire: a v4-mapped socket has the IPv4 fields too.
#[inline(always)]
fn ends(ctx: &SockOpsContext) -> (Words, Words) {
    let (local4, remote4) = (address::mapped(ctx.local_ip4()), address::mapped(ctx.remote_ip4()));
    if ctx.family() == AF_INET {
        return (local4, remote4);
    }
    let word = |base: *const u32, index: usize| {
        // SAFETY: a word within a field of the context; volatile, since the verifier refuses wider reads.
        unsafe { core::ptr::read_volatile(base.add(index)) }
    };
    // SAFETY: addresses of fields of the context.
    let (local, remote) = unsafe {
        ((&raw const (*ctx.ops).local_ip6).cast::<u32>(), (&raw const (*ctx.ops).remote_ip6).cast::<u32>())
    };
    let remote6 = [word(remote, 0), word(remote, 1), word(remote, 2), word(remote, 3)];
    if address::is_mapped(&remote6) {
        return (local4, remote4);
    }
    ([word(local, 0), word(local, 1), word(local, 2), word(local, 3)], remote6)
}

/// The flow as the egress program will look for it.
#[inline(always)]
fn own(flow: &Flow) -> Flow {
    let mut own = *flow;
    if !egress_netns() {
        own.netns = 0;
    }
    own
}
