//! Offsets of members in the running kernel's structures, read from its BTF. This parser knows members and
//! their offsets only, and returns an error rather than an uncertain number: a wrong offset is a wrong
//! identity.

use std::collections::HashMap;
use std::fs;

use agentsecrets_ebpf::MEMBERS;

use super::error::EbpfError;

const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Anonymous members are walked this deep.
const DEPTH: usize = 8;

/// Byte offsets of [`MEMBERS`] in the running kernel, in that order.
pub(super) fn of_kernel() -> Result<[u32; 8], EbpfError> {
    let no_btf = |reason: String| EbpfError::NoBtf { reason };
    let data = fs::read(KERNEL).map_err(|error| no_btf(format!("{KERNEL}: {error}")))?;
    let types = Types::parse(&data).ok_or_else(|| no_btf(format!("{KERNEL} cannot be read")))?;
    let mut offsets = [0; 8];
    for (offset, (structure, member)) in offsets.iter_mut().zip(MEMBERS) {
        *offset = types
            .structure(structure)
            .and_then(|found| types.offset(found, member, DEPTH))
            .ok_or_else(|| no_btf(format!("no member {structure}.{member}")))?;
    }
    Ok(offsets)
}

/// A structure's or union's members in the type section.
#[derive(Clone, Copy)]
struct Composite {
    /// The offset of its first member.
    at: usize,
    count: usize,
    /// Whether the upper byte of a member's offset is the width of a bit field.
    bit_fields: bool,
}

struct Types<'a> {
    section: &'a [u8],
    strings: &'a [u8],
    /// By type id; `None` for every other kind of type.
    composites: Vec<Option<Composite>>,
    /// Named structures alone. The first of a name wins, as everywhere.
    names: HashMap<&'a [u8], usize>,
}

impl<'a> Types<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(data.get(..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let header = |at| word(data, at).map(|value| value as usize);
        let body = data.get(header(4)?..)?;
        let range = |offset: usize, length: usize| body.get(offset..offset.checked_add(length)?);
        let section = range(header(8)?, header(12)?)?;
        let strings = range(header(16)?, header(20)?)?;
        let mut types = Self { section, strings, composites: vec![None], names: HashMap::new() };
        let mut at = 0;
        while at < section.len() {
            at = types.add(at)?;
        }
        Some(types)
    }

    /// Takes in the type that begins at `at`; says where the next begins.
    fn add(&mut self, at: usize) -> Option<usize> {
        let (name, info) = (word(self.section, at)?, word(self.section, at + 4)?);
        let (count, kind) = ((info & 0xffff) as usize, (info >> 24) & 0x1f);
        let after = at + 12;
        let mut composite = None;
        if kind == STRUCT || kind == UNION {
            composite = Some(Composite { at: after, count, bit_fields: info >> 31 == 1 });
            if kind == STRUCT && name != 0 {
                self.names.entry(self.string(name)?).or_insert(self.composites.len());
            }
        }
        self.composites.push(composite);
        Some(after + trailing(kind, count)?)
    }

    fn structure(&self, name: &str) -> Option<Composite> {
        self.composites.get(*self.names.get(name.as_bytes())?).copied()?
    }

    /// The byte offset of a member, also of one within an anonymous member.
    fn offset(&self, composite: Composite, name: &str, depth: usize) -> Option<u32> {
        for index in 0..composite.count {
            let at = composite.at + index * 12;
            let (member, kind) = (word(self.section, at)?, word(self.section, at + 4)?);
            let mut bits = word(self.section, at + 8)?;
            let mut width = 0;
            if composite.bit_fields {
                (bits, width) = (bits & 0x00ff_ffff, bits >> 24);
            }
            let member = self.string(member)?;
            if member == name.as_bytes() {
                return (width == 0 && bits.is_multiple_of(8)).then_some(bits / 8);
            }
            if member.is_empty()
                && depth > 0
                && let Some(inner) = self.composites.get(kind as usize).copied().flatten()
                && let Some(within) = self.offset(inner, name, depth - 1)
            {
                return (bits / 8).checked_add(within);
            }
        }
        None
    }

    fn string(&self, at: u32) -> Option<&'a [u8]> {
        self.strings.get(at as usize..)?.split(|&byte| byte == 0).next()
    }
}

/// The number of bytes that follow a type's three words. An unknown kind has no known length.
fn trailing(kind: u32, count: usize) -> Option<usize> {
    match kind {
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=12 | 16 | 18 => Some(0),
        // integer, variable, declaration tag
        1 | 14 | 17 => Some(4),
        // array
        3 => Some(12),
        // structure, union, section of variables, 64-bit enumeration
        4 | 5 | 15 | 19 => Some(count * 12),
        // enumeration, function's parameters
        6 | 13 => Some(count * 8),
        _ => None,
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct a { int x; union { int y; struct { long z; }; }; }`, with `z` at byte 8.
    fn sample(kind_flag: u32) -> Vec<u8> {
        let strings = b"\0a\0x\0y\0z\0";
        let words: Vec<u32> = [
            vec![3, 1 << 24, 4, 0],                    // 1: int (named as it likes)
            vec![0, 4 << 24 | 1, 8, 7, 1, 0],          // 2: struct { z }
            vec![0, 5 << 24 | 2, 8, 5, 1, 0, 0, 2, 0], // 3: union { y; <2> }
            vec![1, kind_flag << 31 | 4 << 24 | 2, 16, 3, 1, 0, 0, 3, 64], // 4: struct a { x; <3> }
        ]
        .concat();
        let length = (words.len() * 4) as u32;
        let mut data = vec![];
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        for value in [24, 0, length, length, strings.len() as u32] {
            data.extend(value.to_ne_bytes());
        }
        words.iter().for_each(|value| data.extend(value.to_ne_bytes()));
        data.extend(strings);
        data
    }

    #[test]
    fn nested_anonymous_member_is_found() {
        for kind_flag in [0, 1] {
            let data = sample(kind_flag);
            let types = Types::parse(&data).unwrap();
            let a = types.structure("a").unwrap();
            assert_eq!(types.offset(a, "x", DEPTH), Some(0));
            assert_eq!(types.offset(a, "y", DEPTH), Some(8));
            assert_eq!(types.offset(a, "z", DEPTH), Some(8));
            assert_eq!(types.offset(a, "w", DEPTH), None);
        }
    }

    #[test]
    fn offsets_of_the_running_kernel_are_found() {
        let offsets = of_kernel().unwrap();
        assert!(offsets.iter().all(|&offset| offset < 65_536), "{offsets:?}");
        assert_ne!(offsets[0], offsets[2]);
    }

    proptest! {
        #[test]
        fn damaged_descriptions_are_refused_or_read_without_panic(at in 0usize..200, byte: u8, cut in 0usize..200) {
            let mut data = sample(0);
            if let Some(target) = data.get_mut(at) {
                *target = byte;
            }
            data.truncate(data.len().saturating_sub(cut % 40));
            if let Some(types) = Types::parse(&data) {
                let _ = types.structure("a").and_then(|a| types.offset(a, "z", DEPTH));
            }
        }
    }
}
