//! The kernel programs. Every one of them fails closed: what they cannot read, parse or remember is
//! refused. They hold what an agent's sockets may do to two doors, the listener and the resolver, and
//! to the agent's own loopback; they decide nothing about hosts or secrets.
#![no_std]
#![no_main]

mod address;
mod connect;
mod datagram;
mod egress;
mod flow;
mod peer;
mod snapshot;
mod socket;
mod state;

/// The kernel lends the helpers that read its memory to programs under this licence only.
#[used]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the verifier refuses a program that could panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
