//! The wall behind the other hooks: what leaves an agent's socket goes to our doors, to the agent
//! itself, or, where policy opens a port, back to who asked there. All else is dropped. Our doors and the
//! agent itself are on the loopback device: an address of theirs on another device is somebody else's.

use core::ptr;

use agentsecrets_ebpf::Flow;
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use crate::address::{self, Words};
use crate::state::{self, OWN_FLOWS, dns_port, egress_netns, listener_port};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The loopback device has this number in every network namespace.
const LOOPBACK: u32 = 1;

/// What a packet says of itself.
struct Packet {
    protocol: u8,
    source: Words,
    destination: Words,
    /// Where the transport's header begins.
    transport: usize,
}

#[cgroup_skb(egress)]
pub fn as_egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the program's own context.
    if unsafe { state::sent_by_us(ctx.skb.skb) } && !is_self_test(&ctx) {
        return 1;
    }
    i32::from(passes(&ctx).unwrap_or(false))
}

/// Whether we ask what becomes of an agent's packet.
#[inline(always)]
fn is_self_test(ctx: &SkBuffContext) -> bool {
    parse(ctx).is_some_and(|packet| packet.destination == address::SELF_TEST)
}

#[inline(always)]
fn passes(ctx: &SkBuffContext) -> Option<bool> {
    let packet = parse(ctx)?;
    let from = u16::from_be(ctx.load(packet.transport).ok()?);
    let to = u16::from_be(ctx.load(packet.transport + 2).ok()?);
    let ours = packet.destination == address::OUR4 || packet.destination == address::OUR6;
    // SAFETY: a field of the context.
    let stays = unsafe { ptr::read_volatile(&raw const (*ctx.skb.skb).ifindex) } == LOOPBACK;
    match packet.protocol {
        UDP => Some(stays && ours && to == dns_port()),
        TCP => {
            if stays && ours && (to == listener_port() || to == dns_port()) {
                return Some(true);
            }
            let flags: u8 = ctx.load(packet.transport + 13).ok()?;
            if is_answer(ctx, from, flags) {
                return Some(true);
            }
            if !stays {
                return Some(false);
            }
            let bare = is_bare(ctx, &packet);
            Some(is_own(ctx, &packet, from, to, flags, bare) || is_bare_reset(&packet, flags, bare))
        }
        _ => Some(false),
    }
}

/// By the packet's own version: a v4-mapped socket sends IPv4. Options, fragments and extension headers
/// are no part of what we send on, so they are dropped.
#[inline(always)]
fn parse(ctx: &SkBuffContext) -> Option<Packet> {
    let first: u8 = ctx.load(0).ok()?;
    match first >> 4 {
        4 => {
            let fragment = u16::from_be(ctx.load(6).ok()?);
            if first != 0x45 || fragment & 0x3fff != 0 {
                return None;
            }
            Some(Packet {
                protocol: ctx.load(9).ok()?,
                source: address::mapped(ctx.load(12).ok()?),
                destination: address::mapped(ctx.load(16).ok()?),
                transport: 20,
            })
        }
        6 => Some(Packet {
            protocol: ctx.load(6).ok()?,
            source: ctx.load(8).ok()?,
            destination: ctx.load(24).ok()?,
            transport: 40,
        }),
        _ => None,
    }
}

/// From a port that policy opened, and not the beginning of a connection.
#[inline(always)]
fn is_answer(ctx: &SkBuffContext, from: u16, flags: u8) -> bool {
    // SAFETY: the program's own context.
    flags & (ACK | RST) != 0 && unsafe { state::is_inbound(ctx.skb.skb, from) }
}

/// Whether the packet belongs to a connection of the agent to itself. Nothing but a bare SYN goes before
/// the SYN-ACK, which comes by here only if the socket that answers is the agent's too: several programs
/// of a user can share a port, and the kernel chooses among them after `connect` was judged.
#[inline(always)]
fn is_own(ctx: &SkBuffContext, packet: &Packet, from: u16, to: u16, flags: u8, bare: bool) -> bool {
    let flow = Flow {
        // SAFETY: the program's own context.
        netns: if egress_netns() { unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } } else { 0 },
        source: address::to_bytes(&packet.source),
        destination: address::to_bytes(&packet.destination),
        source_port: from,
        destination_port: to,
        padding: [0; 4],
    };
    // SAFETY: the value is one byte, and is copied at once.
    let Some(stage) = (unsafe { OWN_FLOWS.get(flow) }).copied() else { return false };
    match stage {
        state::OPEN => true,
        state::ASKED => bare && flags & (SYN | ACK) == SYN,
        _ if bare && flags & (SYN | ACK) == SYN | ACK => {
            OWN_FLOWS.insert(flow, state::OPEN, 0).is_ok()
                && OWN_FLOWS.insert(state::reverse(&flow), state::OPEN, 0).is_ok()
        }
        _ => false,
    }
}

/// Whether it carries no data.
#[inline(always)]
fn is_bare(ctx: &SkBuffContext, packet: &Packet) -> bool {
    let Ok(offset) = ctx.load::<u8>(packet.transport + 12) else { return false };
    ctx.len() as usize == packet.transport + usize::from(offset >> 4) * 4
}

/// A reset within loopback, without a byte of data: an own connection that is aborted has already left
/// the table when it is sent.
#[inline(always)]
fn is_bare_reset(packet: &Packet, flags: u8, bare: bool) -> bool {
    bare && flags & RST != 0
        && address::is_loopback(&packet.destination)
        && address::is_loopback(&packet.source)
}
