//! The encodings in which a server may send a secret back, as folded text. Escapes need no encoding, since they are taken off
//! the answer; neither do letter case, the second base64 alphabet, line breaks and plain UTF-16, which
//! folding makes one. What is left: the value itself, base64 wherever it begins in a group of three, the same of
//! UTF-16, and dumps of its bytes as numbers. A server that encrypts, reverses or splits a value is beyond
//! this, and the manual says so.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::unescape::{LAYERS, unescape};
use crate::canonical::{fold, fold_with_offsets};
use crate::fragments::Fragment;

/// A secret shorter than this is only looked for whole.
const MIN_SECRET_LEN_FOR_PIECES: usize = 12;
/// The longest piece of a secret that may pass, and one more.
const MAX_PIECE_THRESHOLD: usize = 24;
/// A secret shorter than this must stand there to the letter: folded, it would be found in too much.
const MIN_FOLDED_LEN: usize = 8;
/// Base64 shorter than this would be found by chance in other encoded data.
const MIN_BASE64_LEN: usize = 6;
/// Values larger than this are known by fewer encodings, since each takes memory.
const LARGE: usize = 64 << 10;

/// A encoding of a secret: wiped when dropped.
pub(super) struct Encoding {
    /// Folded.
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// The exact bytes that must stand there, if text that folds alike does not count.
    pub(super) exact: Option<Zeroizing<Vec<u8>>>,
    /// The range of the secret itself in `bytes`.
    pub(super) core: Range<usize>,
    /// So many of `bytes` tell all that this encoding tells.
    pub(super) whole_len: usize,
    /// So many of the core in a row are a piece of the secret.
    pub(super) min_piece: usize,
    /// Whether a character before, and one behind, also hold bits of the secret.
    pub(super) shared_ends: (bool, bool),
    /// The ranges of the seeds in `bytes`: every piece contains a seed.
    pub(super) seeds: Vec<Range<usize>>,
}

/// The length of a piece of a secret of `length` bytes that must not pass: three quarters, but no more than
/// [`MAX_PIECE_THRESHOLD`]; a short secret must not pass whole.
pub(super) fn piece(length: usize) -> usize {
    if length < MIN_SECRET_LEN_FOR_PIECES {
        length
    } else {
        (length * 3).div_ceil(4).min(MAX_PIECE_THRESHOLD)
    }
}

/// Every encoding of `fragment`.
pub(super) fn encodings(fragment: &Fragment) -> Vec<Encoding> {
    let mut encodings = Vec::new();
    let value = &*fragment.bytes;
    let piece = piece(fragment.core.len());
    let is_exact = value.len() < MIN_FOLDED_LEN;
    encodings.extend(Encoding::of(value, fragment.core.clone(), piece, is_exact));
    // A value that looks as if it had escapes loses them with those of the answer.
    let mut unescaped = fragment.bytes.clone();
    for _ in 0..LAYERS {
        let mut next = Zeroizing::new(Vec::with_capacity(unescaped.len() * 2));
        unescape(&unescaped, &mut *next);
        if next != unescaped {
            encodings.extend(Encoding::of(&next, 0..next.len(), piece.min(next.len()), is_exact));
        }
        unescaped = next;
    }
    let others = quoted_printable(value).into_iter().chain(utf16(value).into_iter().flatten());
    for text in others {
        let Some(encoding) = Encoding::of(&text, 0..text.len(), (piece * 2).min(text.len()), is_exact) else {
            continue;
        };
        // UTF-16 folds to the value itself where that is ASCII.
        if !encodings.iter().any(|known| known.bytes == encoding.bytes && known.exact == encoding.exact) {
            encodings.push(encoding);
        }
    }
    base64(&mut encodings, value, &fragment.core, piece, is_exact);
    numbers(&mut encodings, fragment, piece, &Number { write: hex, width: 2, seed: 16 });
    if value.len() <= LARGE {
        let [little, big] = utf16(value).unwrap_or_default();
        // The NUL at either end belongs to one byte order alone.
        let little = little.strip_suffix(&[0]).unwrap_or(&little);
        let big = big.strip_prefix(&[0]).unwrap_or(&big);
        let orders = [little, big];
        for text in orders.get(..if little == big { 1 } else { 2 }).unwrap_or_default() {
            base64(&mut encodings, text, &(0..text.len()), piece * 2 - 1, is_exact);
        }
        for write in [hex_with::<b':'>, hex_with::<b' '>, hex_with::<b','>, hex_c, hex_c_blank] {
            let width = write(0).len();
            numbers(&mut encodings, fragment, piece, &Number { write, width, seed: 12 });
        }
        for write in [decimal, decimal_blank] {
            // One digit, at the least, and what separates it.
            let width = write(0).len();
            numbers(&mut encodings, fragment, piece, &Number { write, width, seed: 12 });
        }
    }
    encodings
}

impl Encoding {
    /// The encoding `text`, in which the secret itself is at `core`.
    fn of(text: &[u8], core: Range<usize>, min_piece: usize, is_exact: bool) -> Option<Self> {
        let (bytes, offsets) = fold_with_offsets(text);
        let bytes = Zeroizing::new(bytes);
        let folded = |at: usize| offsets.partition_point(|place| *place < at);
        // So many bytes of a piece are left when it is folded, at the least.
        let pieces = core.start..=core.end.saturating_sub(min_piece);
        let min_piece =
            pieces.map(|start| folded(start + min_piece) - folded(start)).min().unwrap_or_default();
        let core = folded(core.start)..folded(core.end);
        let whole = bytes.len();
        let min_piece = min_piece.min(core.len());
        let mut encoding = Self::folded(bytes, whole, core, min_piece)?;
        encoding.exact = is_exact.then(|| Zeroizing::new(text.to_vec()));
        Some(encoding.seeded(8))
    }

    fn folded(
        bytes: Zeroizing<Vec<u8>>,
        whole_len: usize,
        core: Range<usize>,
        min_piece: usize,
    ) -> Option<Self> {
        let seeds = Vec::new();
        (bytes.len() >= 4 && min_piece > 0).then_some(Self {
            bytes,
            exact: None,
            core,
            whole_len,
            min_piece,
            shared_ends: (false, false),
            seeds,
        })
    }

    /// With seeds of `width` bytes, so close that every piece has one. They lie as far behind as can be: keys begin
    /// alike.
    fn seeded(mut self, width: usize) -> Self {
        let mut place = |from: usize, to: usize, min_piece: usize| {
            let width = width.min(min_piece);
            let mut at = from + min_piece - width;
            while at + width < to {
                self.seeds.push(at..at + width);
                // The last piece begins `min_piece` before the end.
                if at >= to - min_piece {
                    return;
                }
                at += min_piece - width + 1;
            }
            self.seeds.push(to - width..to);
        };
        if self.core.len() > self.min_piece {
            place(self.core.start, self.core.end, self.min_piece);
        } else {
            place(0, self.whole_len, self.whole_len);
        }
        self
    }
}

/// The base64 of `value` where 0 to 2 other bytes come before it in the same group of three: the characters that the
/// value alone determines, whatever surrounds it, and the last one as it is when nothing follows.
fn base64(encodings: &mut Vec<Encoding>, value: &[u8], core: &Range<usize>, piece: usize, is_exact: bool) {
    for before in 0..3 {
        let mut padded = Zeroizing::new(vec![0; before]);
        padded.extend_from_slice(value);
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(&*padded));
        // The characters that also carry bits of the bytes before: 8 bits reach into 2 of them, 16 into 3.
        let first = [0, 2, 3].get(before).copied().unwrap_or_default();
        let place = |at: usize| ((before + at) * 8 / 6).saturating_sub(first);
        let text = text.as_bytes().get(first..).unwrap_or_default();
        if text.len() < MIN_BASE64_LEN {
            continue;
        }
        let mut bytes = Vec::new();
        fold(text, &mut bytes);
        let whole = place(value.len());
        let is_whole = piece >= core.len();
        let core = place(core.start)..place(core.end);
        // A piece may begin and end within a character.
        let min_piece = if is_whole { core.len() } else { (piece * 8 - 10) / 6 };
        let Some(mut encoding) = Encoding::folded(Zeroizing::new(bytes), whole, core, min_piece) else {
            continue;
        };
        encoding.exact = is_exact.then(|| Zeroizing::new(text.to_vec()));
        encoding.shared_ends = (before > 0, !(before + value.len()).is_multiple_of(3));
        encodings.push(encoding.seeded(8));
    }
}

/// One way to write bytes as numbers.
struct Number {
    write: fn(u8) -> Vec<u8>,
    /// The least number of bytes that it writes for a byte.
    width: usize,
    seed: usize,
}

fn numbers(encodings: &mut Vec<Encoding>, fragment: &Fragment, piece: usize, number: &Number) {
    let mut text = Zeroizing::new(Vec::with_capacity(fragment.bytes.len() * 6));
    let mut core = 0..0;
    for (at, byte) in fragment.bytes.iter().enumerate() {
        if at == fragment.core.start {
            core.start = text.len();
        }
        text.extend_from_slice(&(number.write)(*byte));
        if at + 1 == fragment.core.end {
            core.end = text.len();
        }
    }
    // The separator at the end need not be there.
    let separated = text.iter().rev().take_while(|byte| !byte.is_ascii_alphanumeric()).count();
    let whole = text.len() - separated;
    text.truncate(whole);
    core.end = core.end.min(whole);
    let min_piece = if piece < fragment.core.len() { piece * number.width - separated } else { core.len() };
    // Separators are blanks, commas and colons, of which folding leaves out none.
    let mut bytes = Vec::new();
    fold(&text, &mut bytes);
    if let Some(encoding) = Encoding::folded(Zeroizing::new(bytes), whole, core, min_piece) {
        encodings.push(encoding.seeded(number.seed));
    }
}

fn hex(byte: u8) -> Vec<u8> {
    format!("{byte:02x}").into_bytes()
}

fn hex_with<const SEPARATOR: u8>(byte: u8) -> Vec<u8> {
    format!("{byte:02x}{}", char::from(SEPARATOR)).into_bytes()
}

fn hex_c(byte: u8) -> Vec<u8> {
    format!("0x{byte:02x},").into_bytes()
}

fn hex_c_blank(byte: u8) -> Vec<u8> {
    format!("0x{byte:02x}, ").into_bytes()
}

fn decimal(byte: u8) -> Vec<u8> {
    format!("{byte},").into_bytes()
}

fn decimal_blank(byte: u8) -> Vec<u8> {
    format!("{byte}, ").into_bytes()
}

/// `value` in UTF-16, in both byte orders, if it is text.
fn utf16(value: &[u8]) -> Option<[Zeroizing<Vec<u8>>; 2]> {
    let text = std::str::from_utf8(value).ok()?;
    let units = Zeroizing::new(text.encode_utf16().collect::<Vec<u16>>());
    let write =
        |bytes: fn(u16) -> [u8; 2]| Zeroizing::new(units.iter().flat_map(|unit| bytes(*unit)).collect());
    Some([write(u16::to_le_bytes), write(u16::to_be_bytes)])
}

/// `value` in quoted-printable, where that changes it.
fn quoted_printable(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(value.len() * 3));
    for byte in value {
        match byte {
            b' '..=b'<' | b'>'..=b'~' | b'\r' | b'\n' | b'\t' => text.push(*byte),
            _ => text.extend_from_slice(format!("={byte:02X}").as_bytes()),
        }
    }
    (*text != value).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragments::fragments;

    fn all(value: &str) -> Vec<Encoding> {
        fragments(value.as_bytes()).iter().flat_map(encodings).collect()
    }

    #[test]
    fn piece_length_is_three_quarters_or_24_bytes() {
        let pieces = [4, 11, 12, 16, 20, 32, 64, 4096].map(piece);
        assert_eq!(pieces, [4, 11, 9, 12, 15, 24, 24, 24]);
    }

    #[test]
    fn every_piece_contains_a_seed() {
        for length in (4..120).chain([1000]) {
            let value: String = (0..length).map(|at| char::from(b'a' + (at * 7 % 26) as u8)).collect();
            for encoding in all(&value) {
                assert!(
                    encoding.seeds.iter().all(|seed| seed.end <= encoding.bytes.len() && !seed.is_empty())
                );
                for start in encoding.core.start..=encoding.core.end - encoding.min_piece {
                    let piece = start..start + encoding.min_piece;
                    let seeded =
                        encoding.seeds.iter().any(|seed| seed.start >= piece.start && seed.end <= piece.end);
                    assert!(seeded, "{length}: no seed of {:?} in {piece:?}", encoding.seeds);
                }
            }
        }
    }

    #[test]
    fn token_has_few_encodings() {
        assert!(all("sk_live_4eC39HqLyjWDarjtT1zdp7dc").len() < 18);
    }

    #[test]
    fn short_values_have_no_short_base64() {
        assert!(all("abc").is_empty());
        assert!(all("abcd").iter().all(|encoding| encoding.bytes.len() >= 4));
    }
}
