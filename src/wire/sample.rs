//! The first bytes of what a peer sent outside of frames, for an operator: their shape, and never what could be of a patient.

/// So many bytes are shown.
const SHOWN: usize = 16;
/// So many are needed to say what it looks like.
const NEEDED: usize = 5;

/// What bytes outside of frames look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// A message without framing.
    Unframed,
    /// A message in other framing bytes: the first of them.
    Framed(u8),
    /// The beginning of a TLS connection.
    Tls,
    /// An HTTP request.
    Http,
    /// Line ends and blanks alone.
    Blank,
    /// None of these.
    Unknown,
}

/// The beginning of a run of bytes outside of frames.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sample {
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Sample {
    pub(in crate::wire) fn add(&mut self, bytes: &[u8]) {
        let room = SHOWN.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// There is enough to judge by.
    pub(in crate::wire) fn is_enough(&self) -> bool {
        self.bytes.len() >= NEEDED && self.is_strange()
    }

    /// True if there is something else than line ends and blanks.
    pub(in crate::wire) fn is_strange(&self) -> bool {
        self.looks() != Looks::Blank
    }

    /// What it looks like.
    pub fn looks(&self) -> Looks {
        let begins = |bytes: &[u8]| [b"MSH", b"FHS", b"BHS"].iter().any(|name| bytes.get(..3).is_some_and(|head| head.eq_ignore_ascii_case(*name)));
        let text = self.bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.bytes).trim_ascii_start();
        if text.is_empty() {
            return Looks::Blank;
        }
        if begins(text) {
            return Looks::Unframed;
        }
        match *text {
            [0x16, 0x03, ..] => Looks::Tls,
            [first, ..] if first < 0x20 && (1..8).any(|n| text.get(n..).is_some_and(begins)) => Looks::Framed(first),
            _ if METHODS.iter().any(|method| text.starts_with(method.as_bytes())) => Looks::Http,
            _ => Looks::Unknown,
        }
    }

    /// The bytes in hexadecimal: control characters, punctuation, a byte order mark, and the names of a header segment or of an HTTP method as they are;
    /// letters, digits and everything else as `..`, since they may be a patient's.
    pub fn masked(&self) -> String {
        let known: &[&str] = &["MSH", "FHS", "BHS", "msh", "fhs", "bhs", "\u{FEFF}"];
        let mut shown = vec![false; self.bytes.len()];
        for word in known.iter().chain(METHODS) {
            if let Some(at) = self.bytes.windows(word.len()).position(|w| w == word.as_bytes()).filter(|at| *at < 8) {
                shown.iter_mut().skip(at).take(word.len()).for_each(|s| *s = true);
            }
        }
        let plain = |b: u8| b <= 0x20 || b == 0x7F || b.is_ascii_punctuation();
        self.bytes.iter().zip(shown).map(|(b, shown)| if shown || plain(*b) { format!("{b:02X}") } else { "..".to_owned() }).collect::<Vec<_>>().join(" ")
    }
}

const METHODS: &[&str] = &["GET ", "POST ", "HEAD ", "PUT ", "OPTIONS "];

#[cfg(test)]
mod tests {
    use super::{Looks, Sample};

    #[test]
    fn shapes_are_told_and_contents_are_not() {
        for (bytes, looks, masked) in [
            (&b"MSH|^~\\&|ADT1|Doe"[..], Looks::Unframed, "4D 53 48 7C 5E 7E 5C 26 7C .. .. .. .. 7C .. .."),
            (b"\r\n\x02MSH|^", Looks::Framed(2), "0D 0A 02 4D 53 48 7C 5E"),
            (b"\x16\x03\x01\x02\x00\x01", Looks::Tls, "16 03 01 02 00 01"),
            (b"GET /secret HTTP", Looks::Http, "47 45 54 20 2F .. .. .. .. .. .. 20 .. .. .. .."),
            (b"\r\n \r\n", Looks::Blank, "0D 0A 20 0D 0A"),
            (b"PID|1||Doe^Jane", Looks::Unknown, ".. .. .. 7C .. 7C 7C .. .. .. 5E .. .. .. .."),
            ("\u{FEFF}MSH|".as_bytes(), Looks::Unframed, "EF BB BF 4D 53 48 7C"),
        ] {
            let mut sample = Sample::default();
            sample.add(bytes);
            assert_eq!((sample.looks(), sample.masked().as_str()), (looks, masked), "{}", bytes.escape_ascii());
        }
    }
}
