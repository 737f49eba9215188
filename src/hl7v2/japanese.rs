//! The Japanese sets of table 0211, ISO IR14, IR87 and IR159: JIS X 0201, 0208 and 0212 with the escape sequences of ISO 2022 between them.

use encoding_rs::EUC_JP;

/// What seven-bit bytes stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::hl7v2) enum Set {
    /// ASCII, and JIS X 0201's Latin half, whose yen sign and overline are HL7's `\` and `~` here: a delimiter must stay one.
    Latin,
    /// JIS X 0201's other half, half-width katakana. Bytes from 0xA1 to 0xDF are that in every set.
    Katakana,
    /// JIS X 0208, two bytes each.
    Kanji,
    /// JIS X 0212, two bytes each.
    Supplementary,
}

/// The text, or the offset of the first byte that cannot be read. A line's end goes back to Latin.
pub(in crate::hl7v2) fn decode(bytes: &[u8]) -> Result<String, usize> {
    decode_from(Set::Latin, bytes)
}

/// The same, begun in another set.
pub(in crate::hl7v2) fn decode_from(mut set: Set, bytes: &[u8]) -> Result<String, usize> {
    let mut text = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(rest @ [byte, ..]) = bytes.get(at..) {
        at += match (set, rest) {
            (_, [0x1B, ..]) => {
                let (to, length) = designated(rest).ok_or(at)?;
                set = to.unwrap_or(set);
                length
            }
            (_, [0..=0x20, ..]) => {
                if matches!(byte, b'\r' | b'\n') {
                    set = Set::Latin;
                }
                text.push(char::from(*byte));
                1
            }
            (_, [kana @ 0xA1..=0xDF, ..]) => {
                text.push(katakana(*kana - 0x80));
                1
            }
            (Set::Latin, [0x21..=0x7F, ..]) => {
                text.push(char::from(*byte));
                1
            }
            (Set::Katakana, [kana @ 0x21..=0x5F, ..]) => {
                text.push(katakana(*kana));
                1
            }
            (Set::Kanji, [row @ 0x21..=0x7E, cell @ 0x21..=0x7E, ..]) => {
                text.push_str(&pair(&[*row | 0x80, *cell | 0x80]).ok_or(at)?);
                2
            }
            (Set::Supplementary, [row @ 0x21..=0x7E, cell @ 0x21..=0x7E, ..]) => {
                text.push_str(&pair(&[0x8F, *row | 0x80, *cell | 0x80]).ok_or(at)?);
                2
            }
            _ => return Err(at),
        };
    }
    Ok(text)
}

/// What an escape sequence changes to, and how long it is. Katakana in G1 is there anyway.
fn designated(rest: &[u8]) -> Option<(Option<Set>, usize)> {
    Some(match *rest {
        [_, b'(', b'B' | b'J', ..] => (Some(Set::Latin), 3),
        [_, b'(', b'I', ..] => (Some(Set::Katakana), 3),
        [_, b')', b'I', ..] => (None, 3),
        [_, b'$', b'@' | b'B', ..] => (Some(Set::Kanji), 3),
        [_, b'$', b'(', b'@' | b'B', ..] => (Some(Set::Kanji), 4),
        [_, b'$', b'(', b'D', ..] => (Some(Set::Supplementary), 4),
        _ => return None,
    })
}

fn katakana(byte: u8) -> char {
    char::from_u32(0xFF61 + u32::from(byte) - 0x21).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn pair(bytes: &[u8]) -> Option<String> {
    EUC_JP.decode_without_bom_handling_and_without_replacement(bytes).map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn sets_and_what_is_in_none() {
        assert_eq!(decode(b"A\x1B$B4A\x1B(B|\x1B(I1\x1B(B|\xB1").as_deref(), Ok("A漢|ｱ|ｱ"));
        assert_eq!(decode(b"\x1B$(D0!\x1B(B~").as_deref(), Ok("丂~"));
        assert_eq!(decode(b"\x1B$B4A\rPID").as_deref(), Ok("漢\rPID"), "a line's end is Latin again");
        for (bytes, at) in [(&b"ab\x1B%G"[..], 2), (b"\x1B$B4", 3), (b"a\x80", 1), (b"\x1B$B\x7E\x7E", 3), (b"a\xE0", 1)] {
            assert_eq!(decode(bytes), Err(at), "{}", bytes.escape_ascii());
        }
    }
}
