//! The canonical text in which secrets are looked for. Folding makes one of what encoders vary without changing
//! the meaning: letter case, the two base64 alphabets, `+` and blank; and it leaves out what they put in
//! between: line breaks with the indentation that follows, the NULs of UTF-16, backslashes, padding. A secret
//! is folded just as its answer is, so folding hides nothing: it can only make two texts alike that were not.

/// How many blanks after a line break are indentation.
const INDENTATION: u8 = 32;
/// What goes before each line of an event's data.
const DATA: &[u8] = b"data:";
/// How many bytes are looked at together.
const BLOCK: usize = 32;

/// Folds `bytes` into `out`, in place of what it held.
pub(super) fn fold(bytes: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.resize(bytes.len(), 0);
    let (mut at, mut length) = (0, 0);
    let mut indentation_left = 0;
    while at < bytes.len() {
        let mut end = at + 1;
        if indentation_left == 0 {
            end = bytes.len();
            if let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>())
                && let Some(room) = out.get_mut(length..).and_then(|room| room.first_chunk_mut::<BLOCK>())
            {
                let plain = fold_block(block, room);
                at += plain;
                length += plain;
                if plain == BLOCK {
                    continue;
                }
                end = at + 1;
            }
        }
        at = step(bytes, at, end, &mut indentation_left, |_, byte| {
            if let Some(room) = out.get_mut(length) {
                *room = byte;
            }
            length += 1;
        });
    }
    out.truncate(length);
}

/// The folded `bytes`, and where in `bytes` each stood.
pub(super) fn fold_with_offsets(bytes: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut folded, mut offsets) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len()));
    step(bytes, 0, bytes.len(), &mut 0, |at, byte| {
        folded.push(byte);
        offsets.push(at);
    });
    (folded, offsets)
}

/// Folds a block, and gives how many bytes there are before the first that is left out. Written so that the compiler
/// makes vector instructions of it.
fn fold_block(block: &[u8; BLOCK], room: &mut [u8; BLOCK]) -> usize {
    let mut is_left_out = false;
    for (byte, room) in block.iter().zip(room) {
        *room = folded(*byte);
        is_left_out |= leaves_out(*byte);
    }
    if is_left_out { block.iter().position(|byte| leaves_out(*byte)).unwrap_or(BLOCK) } else { BLOCK }
}

/// Folds `bytes[at..end]`, or a little more, and gives where it ended. `blanks` is how many more blanks would be
/// indentation.
fn step(
    bytes: &[u8],
    mut at: usize,
    end: usize,
    indentation_left: &mut u8,
    mut emit: impl FnMut(usize, u8),
) -> usize {
    while at < end {
        let Some(byte) = bytes.get(at).copied() else { break };
        if *indentation_left > 0 && matches!(byte, b' ' | b'\t') {
            *indentation_left -= 1;
        } else if *indentation_left > 0 && bytes.get(at..).is_some_and(|rest| rest.starts_with(DATA)) {
            at += DATA.len();
            continue;
        } else if matches!(byte, b'\r' | b'\n') {
            *indentation_left = INDENTATION;
        } else if byte != 0 {
            *indentation_left = 0;
            if !leaves_out(byte) {
                emit(at, folded(byte));
            }
        }
        at += 1;
    }
    at
}

#[inline]
fn folded(byte: u8) -> u8 {
    let lower = if byte.wrapping_sub(b'A') < 26 { byte | 0x20 } else { byte };
    let blank = if lower == b'-' || lower == b' ' || lower == b'\t' { b'+' } else { lower };
    if blank == b'_' { b'/' } else { blank }
}

#[inline]
fn leaves_out(byte: u8) -> bool {
    byte == 0 || byte == b'\r' || byte == b'\n' || byte == b'\\' || byte == b'='
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> String {
        let mut out = vec![1, 2, 3];
        fold(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn encoder_variants_fold_alike() {
        assert_eq!(text(b"aB-_+/ \t"), "ab+/+/++");
        assert_eq!(text(b"a\\/b\\\\c=="), "a/bc");
        assert_eq!(text(b"a\0b\0\r\0\n\0c\0"), "abc");
        assert_eq!(text(b"line\r\n\t  goes on\ndata: and on"), "linegoes+onand+on");
    }

    proptest! {
        #[test]
        fn block_and_step_folding_agree(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"a \ndat:\\=\0".to_vec())], 0..300),
        ) {
            let mut quick = Vec::new();
            fold(&bytes, &mut quick);
            prop_assert_eq!(quick, fold_with_offsets(&bytes).0);
        }
    }
}
