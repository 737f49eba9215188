//! The one pass over a message: where each segment is, and each field separator in it.

use smallvec::SmallVec;

/// A segment's place in the buffer and in the list of separators.
#[derive(Clone, Copy)]
pub(in crate::hl7v2) struct Segment {
    pub(in crate::hl7v2) start: u32,
    pub(in crate::hl7v2) end: u32,
    /// Its first separator in [`Index::separators`]; those of the next segment begin where its own end.
    pub(in crate::hl7v2) first: u32,
}

/// Where everything is. Components are found within their field when somebody asks.
#[derive(Default)]
pub(in crate::hl7v2) struct Index {
    pub(in crate::hl7v2) segments: Vec<Segment>,
    /// The numbers of the segments that begin with the delimiters.
    pub(in crate::hl7v2) headers: SmallVec<[u32; 2]>,
    /// The offsets of all field separators.
    pub(in crate::hl7v2) separators: Vec<u32>,
    /// Lines that begin like no segment and were read as part of the segment before them.
    pub(in crate::hl7v2) wrapped_lines: u32,
    line: usize,
    line_first: usize,
}

const LOW: u64 = 0x0101_0101_0101_0101;
const SEVEN: u64 = 0x7F7F_7F7F_7F7F_7F7F;

/// The high bit of each byte of `word` that equals the repeated byte `pattern`, and no other bit.
const fn equal(word: u64, pattern: u64) -> u64 {
    let x = word ^ pattern;
    !(((x & SEVEN) + SEVEN) | x | SEVEN)
}

impl Index {
    pub(in crate::hl7v2) fn with_room_for(bytes: usize) -> Self {
        // Enough for most messages at once; one with a large document in it has few delimiters for its size.
        let bytes = bytes.min(64 * 1024);
        Self { segments: Vec::with_capacity(8 + bytes / 128), separators: Vec::with_capacity(32 + bytes / 6), ..Self::default() }
    }

    /// Indexes `buffer[from..to]`, which begins at a line's start. Eight bytes are looked at in one step.
    pub(in crate::hl7v2) fn scan(&mut self, buffer: &[u8], from: usize, to: usize, separator: u8) {
        self.line = from;
        self.line_first = self.separators.len();
        let (field, cr, lf) = (LOW * u64::from(separator), LOW * u64::from(b'\r'), LOW * u64::from(b'\n'));
        let Some(bytes) = buffer.get(from..to) else { return };
        let mut base = from;
        let (words, rest) = bytes.as_chunks::<8>();
        for chunk in words {
            let word = u64::from_le_bytes(*chunk);
            let mut hits = equal(word, field) | equal(word, cr) | equal(word, lf);
            while hits != 0 {
                let at = hits.trailing_zeros() as usize / 8;
                hits &= hits - 1;
                self.hit(buffer, base + at, chunk.get(at).copied() == Some(separator));
            }
            base += 8;
        }
        for byte in rest {
            if *byte == separator || *byte == b'\r' || *byte == b'\n' {
                self.hit(buffer, base, *byte == separator);
            }
            base += 1;
        }
        self.line_end(buffer, to);
    }

    #[inline]
    fn hit(&mut self, buffer: &[u8], at: usize, is_separator: bool) {
        if is_separator {
            self.separators.push(offset(at));
        } else {
            self.line_end(buffer, at);
            self.line = at + 1;
            self.line_first = self.separators.len();
        }
    }

    /// A line is complete: a segment, nothing, or more of the segment before it.
    fn line_end(&mut self, buffer: &[u8], end: usize) {
        let mut start = self.line;
        let mut end = end;
        // Framing bytes that were left in the text (FS, VT) belong to no field.
        while end > start && matches!(buffer.get(end - 1), Some(0x1C | 0x0B)) {
            end -= 1;
        }
        while start < end && matches!(buffer.get(start), Some(0x0B | 0x1C)) {
            start += 1;
        }
        if start == end {
            return;
        }
        let name_end = self.separators.get(self.line_first).map(|at| *at as usize);
        let name = buffer.get(start..name_end.unwrap_or(end)).unwrap_or_default();
        let first = offset(self.line_first);
        if let [a, b, c] = name
            && is_name([*a, *b, *c], name_end.is_some())
        {
            return self.begin(buffer, start, end, first);
        }
        let indented = name.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        if name_end.is_some() && name.get(indented..).is_some_and(is_odd_name) {
            return self.begin(buffer, start + indented, end, first);
        }
        match self.segments.last_mut() {
            Some(segment) => {
                segment.end = offset(end);
                self.wrapped_lines += 1;
            }
            None => self.begin(buffer, start, end, first),
        }
    }

    fn begin(&mut self, buffer: &[u8], start: usize, end: usize, first: u32) {
        let name = buffer.get(start..end).and_then(|segment| segment.get(..3)).unwrap_or_default();
        // The second letter tells nearly all others apart.
        let like = matches!(name.get(1), Some(b'S' | b's' | b'H' | b'h'));
        if like && [b"MSH", b"FHS", b"BHS"].iter().any(|header| name.eq_ignore_ascii_case(*header)) {
            self.headers.push(offset(self.segments.len()));
        }
        self.segments.push(Segment { start: offset(start), end: offset(end), first });
    }
}

/// Three letters or digits, a letter first. Without any field the name must be in capitals: `the` is a wrapped word.
fn is_name(name: [u8; 3], has_fields: bool) -> bool {
    let [first, ..] = name;
    first.is_ascii_alphabetic() && name.iter().all(u8::is_ascii_alphanumeric) && (has_fields || !name.iter().any(u8::is_ascii_lowercase))
}

/// What real senders also put before the first separator: `PV`, `PIDX`, and names that are indented.
fn is_odd_name(name: &[u8]) -> bool {
    (2..=4).contains(&name.len()) && name.first().is_some_and(u8::is_ascii_alphabetic) && name.iter().all(u8::is_ascii_alphanumeric)
}

/// Messages are limited far below 4 GiB by the listener and by `Message::parse`.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
