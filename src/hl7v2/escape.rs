//! Escape sequences (HL7 chapter 2, section 2.7): to text, and back.

use crate::hl7v2::japanese::{self, Set};
use crate::hl7v2::{Charset, Delimiters};
use memchr::memchr;
use nom::bytes::complete::take_while_m_n;
use nom::character::complete::{char, digit0, one_of};
use nom::combinator::{all_consuming, map_res, opt};
use nom::multi::{fold_many1, many1};
use nom::sequence::preceded;
use nom::{IResult, Parser};
use std::borrow::Cow;

/// No message asks for more blank lines or spaces in one sequence than this.
const SKIP_MAX: usize = 200;

/// What stands between two escape characters.
enum Sequence {
    Text(&'static str),
    Delimiter(u8),
    Skip(char, usize),
    Bytes(Vec<u8>),
    /// `\Cxxyy\`, `\Mxxyyzz\`: from here on, another character set.
    Shift(Shift),
    /// A local one (`\Z..\`): kept as sent, closing character included.
    Local,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shift {
    /// The message's own set.
    Own,
    /// One with a byte for each character, or with ASCII in its lower half.
    To(Charset),
    Japanese(Set),
}

impl Shift {
    /// `\Cxxyy\` (section 2.7.2) and `\Mxxyyzz\` (2.7.3): the bytes of an ISO 2022 escape sequence in hexadecimal.
    fn read(body: &[u8]) -> Option<Shift> {
        let named = |name| Charset::named(name).map(Shift::To);
        match body {
            b"C2842" | b"C284A" => Some(Shift::Own),
            b"C2949" | b"C2849" => Some(Shift::To(Charset::KATAKANA)),
            b"C2D41" => named("8859/1"),
            b"C2D42" => named("8859/2"),
            b"C2D43" => named("8859/3"),
            b"C2D44" => named("8859/4"),
            b"C2D4C" => named("8859/5"),
            b"C2D47" => named("8859/6"),
            b"C2D46" => named("8859/7"),
            b"C2D48" => named("8859/8"),
            b"C2D4D" => named("8859/9"),
            b"C2D62" => named("8859/15"),
            b"M2442" | b"M2440" => Some(Shift::Japanese(Set::Kanji)),
            b"M242844" => Some(Shift::Japanese(Set::Supplementary)),
            b"M242943" => named("KS X 1001"),
            b"M242941" => named("GB2312"),
            _ => None,
        }
    }
}

/// Text as a person reads it. Sequences that are not known stay as they were sent, so that nothing is lost.
/// `charset` says how the bytes themselves are to be read, `declared` how those of `\X..\` are.
pub(in crate::hl7v2) fn unescape<'a>(bytes: &'a [u8], delimiters: &Delimiters, charset: Charset, declared: Charset) -> Cow<'a, str> {
    let Some(escape) = delimiters.escape else { return charset.decode(bytes) };
    let Some(first) = memchr(escape, bytes) else { return charset.decode(bytes) };
    let mut out = String::with_capacity(bytes.len() + 8);
    let mut shift = Shift::Own;
    // Hexadecimal bytes side by side may be the halves of one character, so they are decoded together.
    let mut pending = Vec::new();
    let (mut at, mut open) = (0, Some(first));
    while let Some(start) = open {
        let run = bytes.get(at..start).unwrap_or_default();
        if !run.is_empty() {
            flush(&mut pending, declared, &mut out);
            push_run(run, shift, charset, &mut out);
        }
        let rest = bytes.get(start + 1..).unwrap_or_default();
        let Some(length) = memchr(escape, rest) else {
            at = start;
            break;
        };
        let body = rest.get(..length).unwrap_or_default();
        let close = start + 1 + length;
        let sequence = read(body, delimiters);
        if !matches!(sequence, Some(Sequence::Bytes(_))) {
            flush(&mut pending, declared, &mut out);
        }
        at = close + 1;
        match sequence {
            Some(Sequence::Text(text)) => out.push_str(text),
            Some(Sequence::Delimiter(byte)) => out.push(char::from(byte)),
            Some(Sequence::Skip(what, count)) => out.extend(std::iter::repeat_n(what, count)),
            Some(Sequence::Bytes(mut more)) => pending.append(&mut more),
            Some(Sequence::Shift(to)) => shift = to,
            Some(Sequence::Local) => out.push_str(&charset.decode(bytes.get(start..=close).unwrap_or_default())),
            None => {
                // Not a sequence: a lone escape character. The closing one may open a real sequence.
                out.push_str(&charset.decode(bytes.get(start..close).unwrap_or_default()));
                at = close;
            }
        }
        open = bytes.get(at..).and_then(|rest| memchr(escape, rest)).map(|n| at + n);
    }
    flush(&mut pending, declared, &mut out);
    push_run(bytes.get(at..).unwrap_or_default(), shift, charset, &mut out);
    Cow::Owned(out)
}

fn flush(pending: &mut Vec<u8>, declared: Charset, out: &mut String) {
    if pending.is_empty() {
        return;
    }
    if declared.first_undecodable(pending).is_some() {
        // Bytes that the message's own set cannot read (often Latin-1 in a UTF-8 message) are read as Latin-1 rather than lost.
        out.push_str(&Charset::LATIN_1.decode(pending));
    } else {
        out.push_str(&declared.decode(pending));
    }
    pending.clear();
}

fn push_run(run: &[u8], shift: Shift, charset: Charset, out: &mut String) {
    match shift {
        // Where the message is UTF-8, also because it was decoded before, that is what its letters are.
        Shift::To(set) if !(charset == Charset::UTF_8 && charset.first_undecodable(run).is_none()) => out.push_str(&set.decode(run)),
        Shift::Japanese(set) => match japanese::decode_from(set, run) {
            Ok(text) => out.push_str(&text),
            Err(_) => out.push_str(&charset.decode(run)),
        },
        Shift::Own | Shift::To(_) => out.push_str(&charset.decode(run)),
    }
}

/// The offset of the first byte of a message that neither its set can read, nor one that an escape sequence before it in the same value changes to.
pub(in crate::hl7v2) fn first_unreadable(text: &[u8], delimiters: &Delimiters, charset: Charset) -> Option<usize> {
    let ends_value = |b: &u8| delimiters.separates(*b) || matches!(b, b'\r' | b'\n');
    let mut start = 0;
    for value in text.split(ends_value) {
        if charset.first_undecodable(value).is_some()
            && let Some(at) = unreadable_in_value(value, delimiters.escape, charset)
        {
            return Some(start + at);
        }
        start += value.len() + 1;
    }
    None
}

fn unreadable_in_value(value: &[u8], escape: Option<u8>, charset: Charset) -> Option<usize> {
    let (mut set, mut at) = (charset, 0);
    let mut pieces = value.split(|b| Some(*b) == escape).peekable();
    while let Some(piece) = pieces.next() {
        match Shift::read(piece).filter(|_| at > 0 && pieces.peek().is_some()) {
            Some(Shift::Own) => set = charset,
            Some(Shift::To(to)) => set = to,
            // Its characters are of seven bits, which every set can read.
            Some(Shift::Japanese(_)) => set = Charset::ASCII,
            None => {
                if let Some(bad) = set.first_undecodable(piece) {
                    return Some(at + bad);
                }
            }
        }
        at += piece.len() + 1;
    }
    None
}

fn read(body: &[u8], delimiters: &Delimiters) -> Option<Sequence> {
    Some(match body {
        b"F" => Sequence::Delimiter(delimiters.field),
        b"S" => Sequence::Delimiter(delimiters.component),
        b"T" => Sequence::Delimiter(delimiters.subcomponent?),
        b"R" => Sequence::Delimiter(delimiters.repetition?),
        b"E" => Sequence::Delimiter(delimiters.escape?),
        b"P" => Sequence::Delimiter(delimiters.truncation.unwrap_or(b'#')),
        b"H" | b"N" => Sequence::Text(""),
        [b'X', hexadecimal @ ..] => Sequence::Bytes(all_consuming(hex_bytes).parse(hexadecimal).ok()?.1),
        [b'.', command @ ..] => formatting(command)?,
        [b'C' | b'M', ..] => Sequence::Shift(Shift::read(body)?),
        [b'Z', ..] => Sequence::Local,
        _ => return None,
    })
}

fn hex_bytes(input: &[u8]) -> IResult<&[u8], Vec<u8>> {
    let digits = take_while_m_n(2, 2, |b: u8| b.is_ascii_hexdigit());
    many1(map_res(digits, |pair| std::str::from_utf8(pair).map_err(drop).and_then(|p| u8::from_str_radix(p, 16).map_err(drop)))).parse(input)
}

/// Section 2.7.6: commands that break or skip become line breaks and spaces, those of layout nothing.
fn formatting(command: &[u8]) -> Option<Sequence> {
    let number = |input| -> IResult<&[u8], Option<usize>> {
        let digits = preceded(opt(one_of("+-")), digit0);
        nom::combinator::map(preceded(fold_spaces, digits), |d: &[u8]| std::str::from_utf8(d).ok().and_then(|d| d.parse().ok())).parse(input)
    };
    let (name, rest) = command.split_at_checked(2)?;
    let count = all_consuming(number).parse(rest).ok()?.1;
    Some(match name {
        b"br" | b"ce" if count.is_none() => Sequence::Text("\n"),
        b"sp" => Sequence::Skip('\n', count.unwrap_or(1).min(SKIP_MAX)),
        b"sk" => Sequence::Skip(' ', count.unwrap_or(1).min(SKIP_MAX)),
        b"in" | b"ti" => Sequence::Text(""),
        b"fi" | b"nf" if count.is_none() => Sequence::Text(""),
        _ => return None,
    })
}

fn fold_spaces(input: &[u8]) -> IResult<&[u8], ()> {
    opt(fold_many1(char(' '), || (), |(), _| ())).map(|_| ()).parse(input)
}

/// Appends text with what would be read as a delimiter escaped. Line breaks become `\.br\`, other control characters `\X..\`,
/// so that text can neither end a segment nor an MLLP frame. Without an escape character such text is written as a space.
pub(in crate::hl7v2) fn escape(text: &str, delimiters: &Delimiters, out: &mut Vec<u8>) {
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let name: &[u8] = match byte {
            b'\r' => {
                bytes.next_if_eq(&b'\n');
                b".br"
            }
            b'\n' => b".br",
            b if b == delimiters.field => b"F",
            b if b == delimiters.component => b"S",
            b if Some(b) == delimiters.subcomponent => b"T",
            b if Some(b) == delimiters.repetition => b"R",
            b if Some(b) == delimiters.escape => b"E",
            b if Some(b) == delimiters.truncation => b"P",
            b if b < 0x20 || b == 0x7F => b"X",
            b => {
                out.push(b);
                continue;
            }
        };
        let Some(escape) = delimiters.escape else {
            out.push(b' ');
            continue;
        };
        out.push(escape);
        out.extend_from_slice(name);
        if name == b"X" {
            out.extend_from_slice(format!("{byte:02X}").as_bytes());
        }
        out.push(escape);
    }
}

#[cfg(test)]
mod tests {
    use super::{escape, unescape};
    use crate::hl7v2::{Charset, Delimiters};
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        unescape(text.as_bytes(), &Delimiters::STANDARD, Charset::UTF_8, Charset::UTF_8).into_owned()
    }

    #[test]
    fn every_sequence_of_the_standard() {
        for (sent, want) in [
            (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
            (r"\P\", "#"),
            (r"one\.br\two\.sp\three\.sp2\four\.sp+3\five", "one\ntwo\nthree\n\nfour\n\n\nfive"),
            (r"\.in+4\in\.ti-2\ti\.fi\fi\.nf\nf\.ce\ce\.sk 3\sk", "intifinf\nce   sk"),
            (r"\H\loud\N\", "loud"),
            (r"\X0A\\X41\", "\nA"),
            (r"\XC3BC\\XC3\\XBC\", "üü"),
            (r"\XE4\", "ä"),
            (r"\M2442\4A\C2842\ x", "漢 x"),
            (r"\M242844\0!\C2842\ x", "丂 x"),
        ] {
            assert_eq!(read(sent), want, "{sent}");
        }
    }

    #[test]
    fn what_is_no_sequence_stays_as_sent() {
        for sent in [r"\", r"a\b", r"C:\dir\file", r#"\"\"#, r"\Z99\", r"\X4\", r"\XZZ\", r"\\", r"\.xx\", r"\C2842x\", "\\Q\\"] {
            assert_eq!(read(sent), sent);
        }
        assert_eq!(read(r"C:\dir\F\x"), r"C:\dir|x");
        assert_eq!(read(r"\Z99\F\"), r"\Z99\F\");
    }

    proptest! {
        #[test]
        fn what_is_escaped_reads_back(text in "[^\r\n]{0,40}") {
            let mut out = Vec::new();
            escape(&text, &Delimiters::STANDARD, &mut out);
            prop_assert!(!out.iter().any(|b| b"|^&~\r\n\x0B\x1C".contains(b)));
            prop_assert_eq!(unescape(&out, &Delimiters::STANDARD, Charset::UTF_8, Charset::UTF_8), text);
        }

        #[test]
        fn any_bytes_give_text(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = unescape(&bytes, &Delimiters::STANDARD, Charset::LATIN_1, Charset::UTF_8);
        }
    }
}
