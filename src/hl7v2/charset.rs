//! Character sets: the names of HL7 table 0211 and of real senders, and what decodes them.

use crate::hl7v2::japanese;
use crate::hl7v2::wide::Wide;
use encoding_rs::{DecoderResult, Encoding};
use std::borrow::Cow;

/// A character set that Kiln reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charset(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ascii,
    Utf8,
    /// True ISO 8859-1; encoding_rs would read it as windows-1252.
    Latin1,
    /// True ISO 8859-9; encoding_rs would read it as windows-1254.
    Latin5,
    /// One byte a character, delimiters always themselves: scanned as it is.
    Single(&'static Encoding),
    /// A delimiter byte may be part of a character: decoded to UTF-8 before the scan.
    Multiple(&'static Encoding),
    /// ISO IR14, IR87 and IR159 with ISO 2022 between them, by the table's name; decoded before the scan.
    Japanese(&'static str),
    /// UTF-16 or UTF-32; decoded before the scan.
    Wide(Wide),
}

/// What a name in MSH-18 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hl7v2) enum Named {
    Readable(Charset),
    /// In table 0211, but Kiln has no decoder for it: the table's own name.
    Refused(&'static str),
    /// Not in the table.
    Unknown,
}

impl Charset {
    /// Seven bits.
    pub const ASCII: Charset = Charset(Kind::Ascii);
    /// UTF-8.
    pub const UTF_8: Charset = Charset(Kind::Utf8);
    /// ISO 8859-1, every byte a character.
    pub const LATIN_1: Charset = Charset(Kind::Latin1);
    /// JIS X 0201, for the escape sequences that change to it.
    pub(in crate::hl7v2) const KATAKANA: Charset = Charset(Kind::Japanese("ISO IR14"));

    /// UTF-16 or UTF-32, which the bytes tell and no name.
    pub(in crate::hl7v2) fn wide(wide: Wide) -> Charset {
        Charset(Kind::Wide(wide))
    }

    /// By a name of table 0211 (`8859/1`, `UNICODE UTF-8`, `BIG-5` ...) or a common one (`UTF-8`, `ISO-8859-1`, `windows-1252`), in any case.
    pub fn named(name: &str) -> Option<Charset> {
        match lookup(name) {
            Named::Readable(charset) => Some(charset),
            Named::Refused(_) | Named::Unknown => None,
        }
    }

    /// The name that MSH-18 takes for it (table 0211), or the common name where the table has none.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Ascii => "ASCII",
            Kind::Utf8 => "UNICODE UTF-8",
            Kind::Latin1 => "8859/1",
            Kind::Latin5 => "8859/9",
            Kind::Japanese(name) => name,
            Kind::Wide(wide) => wide.name(),
            Kind::Single(e) | Kind::Multiple(e) => TABLE_0211.iter().find(|(_, named)| *named == Some(e)).map_or(e.name(), |(name, _)| name),
        }
    }

    /// The name that HTTP has for it (IANA's character set registry).
    pub fn http_name(self) -> &'static str {
        match self.0 {
            Kind::Ascii => "US-ASCII",
            Kind::Utf8 => "UTF-8",
            Kind::Latin1 => "ISO-8859-1",
            Kind::Latin5 => "ISO-8859-9",
            // JIS X 0212 came with the second of these (RFC 1554).
            Kind::Japanese("ISO IR159") => "ISO-2022-JP-2",
            Kind::Japanese(_) => "ISO-2022-JP",
            Kind::Wide(wide) => wide.http_name(),
            Kind::Single(encoding) | Kind::Multiple(encoding) => encoding.name(),
        }
    }

    /// UTF-16 or UTF-32, if that is what the bytes are written in: they tell so themselves.
    pub fn told_by(bytes: &[u8]) -> Option<Charset> {
        Wide::detect(bytes).map(|(wide, _)| Charset::wide(wide))
    }

    /// Is it a name of UTF-16 or UTF-32? No set is chosen by such a name: [`Charset::told_by`] says which it is.
    pub fn is_wide_name(name: &str) -> bool {
        matches!(lookup(name), Named::Refused("UNICODE UTF-16" | "UNICODE UTF-32"))
    }

    /// True when bytes of this set must become UTF-8 before delimiters are looked for.
    pub(in crate::hl7v2) fn hides_delimiters(self) -> bool {
        matches!(self.0, Kind::Multiple(_) | Kind::Japanese(_) | Kind::Wide(_))
    }

    /// Bytes to text; what cannot be decoded becomes U+FFFD (a message with such bytes was refused when it was parsed).
    pub fn decode(self, bytes: &[u8]) -> Cow<'_, str> {
        match self.0 {
            // Nearly always valid: the message was checked as a whole. The lossy reader is several times slower.
            Kind::Ascii | Kind::Utf8 => std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed),
            Kind::Japanese(_) | Kind::Wide(_) => Cow::Owned(self.lossy(bytes)),
            _ if bytes.is_ascii() => String::from_utf8_lossy(bytes),
            Kind::Latin1 => Cow::Owned(bytes.iter().map(|b| char::from(*b)).collect()),
            Kind::Latin5 => Cow::Owned(bytes.iter().map(|b| latin5(*b)).collect()),
            Kind::Single(encoding) | Kind::Multiple(encoding) => encoding.decode_without_bom_handling(bytes).0,
        }
    }

    /// What can be read; each byte that cannot is U+FFFD.
    fn lossy(self, mut bytes: &[u8]) -> String {
        let mut text = String::new();
        loop {
            match self.to_utf8(bytes) {
                Ok(rest) => return text + &rest,
                Err(at) => {
                    text.push_str(&self.to_utf8(bytes.get(..at).unwrap_or_default()).unwrap_or_default());
                    text.push(char::REPLACEMENT_CHARACTER);
                    bytes = bytes.get(at + 1..).unwrap_or_default();
                }
            }
        }
    }

    /// Appends text in this set; a letter that the set lacks becomes `?`. False if there was one.
    pub(in crate::hl7v2) fn encode(self, text: &str, out: &mut Vec<u8>) -> bool {
        if let Kind::Wide(wide) = self.0 {
            wide.encode(text, out);
            return true;
        }
        if self.0 == Kind::Utf8 || text.is_ascii() {
            out.extend_from_slice(text.as_bytes());
            return true;
        }
        let encoding = match self.0 {
            Kind::Japanese(_) => Some(encoding_rs::ISO_2022_JP),
            Kind::Single(encoding) | Kind::Multiple(encoding) => Some(encoding),
            _ => None,
        };
        let Some(encoding) = encoding else {
            let mut well = true;
            for c in text.chars() {
                let byte = u8::try_from(u32::from(c)).ok().filter(|b| b.is_ascii() || self.0 != Kind::Ascii);
                let latin5 = if self.0 == Kind::Latin5 { (0x80..=0xFF).find(|b| latin5(*b) == c) } else { byte };
                let byte = if c.is_ascii() { byte } else { latin5 };
                well &= byte.is_some();
                out.push(byte.unwrap_or(b'?'));
            }
            return well;
        };
        let mut well = true;
        for c in text.chars() {
            let mut buffer = [0; 4];
            let (bytes, _, lost) = encoding.encode(c.encode_utf8(&mut buffer));
            well &= !lost;
            if lost { out.push(b'?') } else { out.extend_from_slice(&bytes) }
        }
        well
    }

    /// Are its bytes UTF-8 as they are?
    pub(in crate::hl7v2) fn is_utf8(self) -> bool {
        matches!(self.0, Kind::Ascii | Kind::Utf8)
    }

    /// Can text be written in this set letter by letter, without looking at where delimiters could hide?
    pub fn is_writable(self) -> bool {
        !self.hides_delimiters()
    }

    /// The text in letters that this set has: `é` becomes `e` where it has none, `ß` becomes `ss`. False if one was replaced or has no such
    /// letter, and then stays as it is.
    pub(in crate::hl7v2) fn fit<'t>(self, text: &'t str) -> (Cow<'t, str>, bool) {
        if self.0 == Kind::Utf8 || text.is_ascii() || self.encode(text, &mut Vec::with_capacity(text.len())) {
            return (Cow::Borrowed(text), true);
        }
        let mut fitting = String::with_capacity(text.len());
        for c in text.chars() {
            let mut buffer = [0; 4];
            let letter = &*c.encode_utf8(&mut buffer);
            if c.is_ascii() || self.encode(letter, &mut Vec::new()) {
                fitting.push(c);
                continue;
            }
            match PLAIN.iter().find(|(from, _)| *from == c) {
                Some((_, plain)) => fitting.push_str(plain),
                None => {
                    let parts = icu_normalizer::DecomposingNormalizerBorrowed::new_nfkd().normalize(letter);
                    let plain: String = parts.chars().filter(char::is_ascii_alphanumeric).collect();
                    fitting.push_str(if plain.is_empty() { letter } else { &plain });
                }
            }
        }
        (Cow::Owned(fitting), false)
    }

    /// True when pure ASCII bytes may still stand for other characters (ISO 2022 shifts with escape sequences).
    pub(in crate::hl7v2) fn has_shifts(self) -> bool {
        matches!(self.0, Kind::Japanese(_))
    }

    /// The offset of the first byte that this set cannot decode.
    pub(in crate::hl7v2) fn first_undecodable(self, bytes: &[u8]) -> Option<usize> {
        match self.0 {
            Kind::Latin1 | Kind::Latin5 => None,
            Kind::Ascii => bytes.iter().position(|b| !b.is_ascii()),
            Kind::Utf8 => std::str::from_utf8(bytes).err().map(|e| e.valid_up_to()),
            Kind::Single(_) if bytes.is_ascii() => None,
            Kind::Single(_) | Kind::Multiple(_) | Kind::Japanese(_) | Kind::Wide(_) => self.to_utf8(bytes).err(),
        }
    }

    /// All bytes as UTF-8, or the offset of the first that cannot be decoded.
    pub(in crate::hl7v2) fn to_utf8(self, bytes: &[u8]) -> Result<String, usize> {
        match self.0 {
            Kind::Japanese(_) => return japanese::decode(bytes),
            Kind::Wide(wide) => return wide.decode(bytes),
            _ => {}
        }
        let (Kind::Single(encoding) | Kind::Multiple(encoding)) = self.0 else {
            return self.first_undecodable(bytes).map_or_else(|| Ok(self.decode(bytes).into_owned()), Err);
        };
        let mut decoder = encoding.new_decoder_without_bom_handling();
        let mut text = String::with_capacity(decoder.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or(bytes.len()));
        match decoder.decode_to_string_without_replacement(bytes, &mut text, true) {
            (DecoderResult::InputEmpty, _) => Ok(text),
            (DecoderResult::Malformed(length, after), read) => Err(read.saturating_sub(usize::from(length) + usize::from(after))),
            (DecoderResult::OutputFull, read) => Err(read),
        }
    }
}

/// Letters and signs that Unicode does not decompose, as they are written without them.
const PLAIN: &[(char, &str)] = &[
    ('ß', "ss"),
    ('ẞ', "SS"),
    ('æ', "ae"),
    ('Æ', "AE"),
    ('œ', "oe"),
    ('Œ', "OE"),
    ('ø', "o"),
    ('Ø', "O"),
    ('đ', "d"),
    ('Đ', "D"),
    ('ð', "d"),
    ('Ð', "D"),
    ('þ', "th"),
    ('Þ', "Th"),
    ('ł', "l"),
    ('Ł', "L"),
    ('ħ', "h"),
    ('ı', "i"),
    ('‘', "'"),
    ('’', "'"),
    ('‚', "'"),
    ('“', "\""),
    ('”', "\""),
    ('„', "\""),
    ('–', "-"),
    ('—', "-"),
    ('‐', "-"),
    ('‑', "-"),
    ('…', "..."),
    ('€', "EUR"),
    ('µ', "u"),
    ('μ', "u"),
    ('°', " deg "),
    ('\u{a0}', " "),
    ('×', "x"),
];

/// ISO 8859-9 is 8859-1 with six Turkish letters in the place of Icelandic ones.
fn latin5(byte: u8) -> char {
    match byte {
        0xD0 => 'Ğ',
        0xDD => 'İ',
        0xDE => 'Ş',
        0xF0 => 'ğ',
        0xFD => 'ı',
        0xFE => 'ş',
        other => char::from(other),
    }
}

/// The table's names with encoding_rs's decoder; without one: refused (`None`), or handled before the look-up.
static TABLE_0211: &[(&str, Option<&Encoding>)] = &[
    ("8859/2", Some(encoding_rs::ISO_8859_2)),
    ("8859/3", Some(encoding_rs::ISO_8859_3)),
    ("8859/4", Some(encoding_rs::ISO_8859_4)),
    ("8859/5", Some(encoding_rs::ISO_8859_5)),
    ("8859/6", Some(encoding_rs::ISO_8859_6)),
    ("8859/7", Some(encoding_rs::ISO_8859_7)),
    ("8859/8", Some(encoding_rs::ISO_8859_8)),
    ("8859/15", Some(encoding_rs::ISO_8859_15)),
    ("GB 18030-2000", Some(encoding_rs::GB18030)),
    ("KS X 1001", Some(encoding_rs::EUC_KR)),
    ("BIG-5", Some(encoding_rs::BIG5)),
    ("CNS 11643-1992", None),
    ("UNICODE UTF-16", None),
    ("UNICODE UTF-32", None),
];

/// Numbers of ISO's register that are no codes of the table, but names that senders know; as [`key`] makes them.
const ALIASES: &[(&str, &str)] = &[
    ("IR101", "88592"),
    ("IR109", "88593"),
    ("IR110", "88594"),
    ("IR144", "88595"),
    ("IR127", "88596"),
    ("IR126", "88597"),
    ("IR138", "88598"),
    ("IR203", "885915"),
    ("IR149", "KSX1001"),
    ("GB18030", "GB180302000"),
    ("CNS11643", "CNS116431992"),
];

/// Letters and digits only, upper case: `ISO-8859-1`, `iso 8859/1` and `ISO_8859-1` are one name.
fn key(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
}

pub(in crate::hl7v2) fn lookup(name: &str) -> Named {
    match name {
        "UNICODE UTF-8" | "UTF-8" => return Named::Readable(Charset::UTF_8),
        "8859/1" => return Named::Readable(Charset::LATIN_1),
        _ => {}
    }
    let key_of_name = key(name);
    let short = key_of_name.strip_prefix("ISO").unwrap_or(&key_of_name);
    match short {
        "ASCII" | "USASCII" | "IR6" => return Named::Readable(Charset::ASCII),
        "UNICODEUTF8" | "UTF8" => return Named::Readable(Charset::UTF_8),
        // The table's `UNICODE` is kept for old senders; what names an encoding replaced it.
        "UNICODE" => return Named::Readable(Charset::UTF_8),
        "IR13" | "IR14" => return Named::Readable(Charset(Kind::Japanese("ISO IR14"))),
        "IR87" => return Named::Readable(Charset(Kind::Japanese("ISO IR87"))),
        "IR159" => return Named::Readable(Charset(Kind::Japanese("ISO IR159"))),
        "88591" | "LATIN1" | "IR100" => return Named::Readable(Charset::LATIN_1),
        "88599" | "LATIN5" | "IR148" => return Named::Readable(Charset(Kind::Latin5)),
        "UTF16" | "UTF16LE" | "UTF16BE" => return Named::Refused("UNICODE UTF-16"),
        "UTF32" | "UTF32LE" | "UTF32BE" => return Named::Refused("UNICODE UTF-32"),
        "" => return Named::Unknown,
        _ => {}
    }
    let short = ALIASES.iter().find(|(alias, _)| *alias == short).map_or(short, |(_, name)| name);
    for (table_name, encoding) in TABLE_0211 {
        let key_of_table = key(table_name);
        if key_of_name == key_of_table || short == key_of_table {
            return encoding.map_or(Named::Refused(table_name), |e| Named::Readable(of(e)));
        }
    }
    match Encoding::for_label_no_replacement(name.trim().as_bytes()) {
        Some(e) if e == encoding_rs::UTF_16LE || e == encoding_rs::UTF_16BE => Named::Refused("UNICODE UTF-16"),
        Some(e) if e == encoding_rs::X_USER_DEFINED => Named::Unknown,
        Some(e) if e == encoding_rs::ISO_2022_JP => Named::Readable(Charset(Kind::Japanese("ISO IR87"))),
        Some(e) => Named::Readable(of(e)),
        None => Named::Unknown,
    }
}

fn of(encoding: &'static Encoding) -> Charset {
    if encoding == encoding_rs::UTF_8 {
        Charset::UTF_8
    } else if encoding.is_single_byte() {
        Charset(Kind::Single(encoding))
    } else {
        Charset(Kind::Multiple(encoding))
    }
}

/// What MSH-18 says: the first repetition is the message's set (empty: ASCII), further ones are shifted to with escape sequences: those of ISO 2022
/// in the bytes for the Japanese ones, `\C..\` and `\M..\` for all (chapter 2, section 2.7.2). Bytes are read as Japanese where there are no other sets
/// beside, or where there are escape sequences of ISO 2022.
pub(in crate::hl7v2) fn declared<'a>(repetitions: impl Iterator<Item = &'a str>, has_escapes: bool) -> Named {
    let (mut first, mut japanese, mut others) = (Named::Unknown, None, false);
    for (n, name) in repetitions.enumerate() {
        let named = if n == 0 && name.trim().is_empty() { Named::Readable(Charset::ASCII) } else { lookup(name) };
        match named {
            Named::Readable(charset) if charset.has_shifts() => japanese = japanese.or(Some(named)),
            Named::Readable(charset) if charset == Charset::ASCII => {}
            _ => others = true,
        }
        if n == 0 {
            first = named;
        }
    }
    match japanese {
        Some(japanese) if first == Named::Readable(Charset::ASCII) && (has_escapes || !others) => japanese,
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::{Charset, Named, declared, lookup};

    #[test]
    fn names() {
        for (name, want) in [
            ("8859/1", "8859/1"),
            ("iso-8859-1", "8859/1"),
            ("ISO_8859-15", "8859/15"),
            ("UNICODE UTF-8", "UNICODE UTF-8"),
            ("utf-8", "UNICODE UTF-8"),
            ("BIG-5", "BIG-5"),
            ("ISO IR87", "ISO IR87"),
            ("GB 18030-2000", "GB 18030-2000"),
            ("windows-1252", "windows-1252"),
        ] {
            assert_eq!(Charset::named(name).map(Charset::name), Some(want), "{name}");
        }
        assert_eq!(lookup("CNS 11643-1992"), Named::Refused("CNS 11643-1992"));
        assert_eq!(lookup("ISO IR 999"), Named::Unknown);
        assert_eq!(declared(["", "ISO IR87"].into_iter(), false), lookup("ISO IR87"));
        assert_eq!(declared(["UNICODE UTF-8", "ISO IR87"].into_iter(), true), lookup("UTF-8"));
        assert_eq!(declared(["ASCII", "8859/1", "ISO IR87"].into_iter(), false), lookup("ASCII"));
        assert_eq!(declared(["ASCII", "8859/1", "ISO IR87"].into_iter(), true), lookup("ISO IR87"));
        assert_eq!(lookup("unicode"), lookup("UTF-8"), "a browser would read that label as UTF-16");
        assert_eq!(lookup("UTF-16LE"), Named::Refused("UNICODE UTF-16"));
        assert_eq!(lookup("ISO IR 101"), lookup("8859/2"));
    }

    #[test]
    fn latin_1_and_latin_5_are_the_standards_not_windows() {
        assert_eq!(Charset::LATIN_1.decode(b"M\xFCller \x80"), "Müller \u{80}");
        assert_eq!(Charset::named("8859/9").map(|c| c.decode(b"\xFE\xFC\x80").into_owned()), Some("şü\u{80}".to_owned()));
    }

    #[test]
    fn letters_that_a_set_lacks_are_written_without_their_marks() {
        let fit = |charset: Charset, text: &str| {
            let (text, well) = charset.fit(text);
            (text.into_owned(), well)
        };
        assert_eq!(fit(Charset::ASCII, "Müller-Strauß, Łukasz O’Brien"), ("Muller-Strauss, Lukasz O'Brien".to_owned(), false));
        assert_eq!(fit(Charset::LATIN_1, "Müller"), ("Müller".to_owned(), true));
        assert_eq!(fit(Charset::LATIN_1, "Müller Čapek 山"), ("Müller Capek 山".to_owned(), false));
        assert_eq!(fit(Charset::ASCII, "＾"), ("＾".to_owned(), false));
    }

    #[test]
    fn the_first_bad_byte_is_named() {
        assert_eq!(Charset::UTF_8.first_undecodable(b"abc\xFFd"), Some(3));
        assert_eq!(Charset::ASCII.first_undecodable(b"ab\xC3\xA4"), Some(2));
        assert_eq!(Charset::named("BIG-5").and_then(|c| c.first_undecodable(b"abcd\xFF!")), Some(4));
    }
}
