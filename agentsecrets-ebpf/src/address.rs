//! Addresses as four words in network byte order, IPv4 as IPv4-mapped IPv6: one form for both families.

use core::ptr;

use aya_ebpf::bindings::bpf_sock_addr;

/// Four words in network byte order.
pub type Words = [u32; 4];

/// The third word of an IPv4-mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
const LOOPBACK4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
const ONE: u32 = u32::from_ne_bytes([0, 0, 0, 1]);

/// `127.0.0.1`.
pub const OUR4: Words = [0, 0, MAPPED, LOOPBACK4];
/// Where we ask what becomes of an agent.
pub const SELF_TEST: Words = [0, 0, MAPPED, u32::from_ne_bytes(agentsecrets_ebpf::SELF_TEST)];
/// `::1`.
pub const OUR6: Words = [0, 0, 0, ONE];

/// An IPv4 address as words.
#[inline(always)]
pub fn mapped(address: u32) -> Words {
    [0, 0, MAPPED, address]
}

#[inline(always)]
pub fn is_mapped(words: &Words) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == MAPPED
}

/// Whether the kernel would lead it to this machine's loopback: 127/8, `0.0.0.0`, `::1`, `::`.
#[inline(always)]
pub fn is_loopback(words: &Words) -> bool {
    if is_mapped(words) {
        return words[3] == 0 || words[3].to_ne_bytes()[0] == 127;
    }
    words[0] == 0 && words[1] == 0 && words[2] == 0 && (words[3] == 0 || words[3] == ONE)
}

/// Where our doors are for an agent that asked for `words`.
#[inline(always)]
pub fn ours(words: &Words) -> Words {
    if is_mapped(words) { OUR4 } else { OUR6 }
}

/// Whether it leads to exactly where our doors are.
#[inline(always)]
pub fn is_ours(words: &Words) -> bool {
    if is_mapped(words) { words[3] == LOOPBACK4 || words[3] == 0 } else { is_loopback(words) }
}

#[inline(always)]
pub fn to_bytes(words: &Words) -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut index = 0;
    while index < 4 {
        let word = words[index].to_ne_bytes();
        bytes[index * 4] = word[0];
        bytes[index * 4 + 1] = word[1];
        bytes[index * 4 + 2] = word[2];
        bytes[index * 4 + 3] = word[3];
        index += 1;
    }
    bytes
}

#[inline(always)]
pub fn from_bytes(bytes: &[u8; 16]) -> Words {
    let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// The address in a hook's context. Word by word and volatile: the verifier refuses wider reads.
///
/// # Safety
/// `ctx` is the context of a program of the family asked for.
#[inline(always)]
pub unsafe fn read<const SIX: bool>(ctx: *mut bpf_sock_addr) -> (Words, u16) {
    // SAFETY: the fields are in bounds of the context.
    unsafe {
        let words = if SIX {
            let ip6 = (&raw const (*ctx).user_ip6).cast::<u32>();
            [
                ptr::read_volatile(ip6),
                ptr::read_volatile(ip6.add(1)),
                ptr::read_volatile(ip6.add(2)),
                ptr::read_volatile(ip6.add(3)),
            ]
        } else {
            mapped(ptr::read_volatile(&raw const (*ctx).user_ip4))
        };
        let port = ptr::read_volatile(&raw const (*ctx).user_port);
        (words, u16::from_be(port as u16))
    }
}

/// Writes an address into a hook's context.
///
/// # Safety
/// As for [`read`], and the hook may write it.
#[inline(always)]
pub unsafe fn write<const SIX: bool>(ctx: *mut bpf_sock_addr, words: &Words, port: u16) {
    // SAFETY: the fields are in bounds of the context.
    unsafe {
        if SIX {
            let ip6 = (&raw mut (*ctx).user_ip6).cast::<u32>();
            ptr::write_volatile(ip6, words[0]);
            ptr::write_volatile(ip6.add(1), words[1]);
            ptr::write_volatile(ip6.add(2), words[2]);
            ptr::write_volatile(ip6.add(3), words[3]);
        } else {
            ptr::write_volatile(&raw mut (*ctx).user_ip4, words[3]);
        }
        ptr::write_volatile(&raw mut (*ctx).user_port, u32::from(port.to_be()));
    }
}
