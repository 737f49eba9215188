//! Files and batches (HL7 chapter 2, section 2.10.3): `[FHS] { [BHS] { MSH ... } [BTS] } [FTS]`, and several messages without any of these.
//!
//! A [`Splitter`] takes bytes in any portions and gives what they hold, piece by piece, so that a file of gigabytes needs the memory of one message.

mod item;

use crate::hl7v2::Header;
use crate::hl7v2::header::message_start;
use crate::hl7v2::wide::Wide;
use bytes::{Buf, Bytes, BytesMut};
pub use item::{BatchItem, Closed, Extract, Flaw, Wrapper};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Messages longer than this are cut, unless another limit is said: that of an index's offsets.
const MESSAGE_BYTES_MAX: usize = u32::MAX as usize - 1;
/// So many blanks after a framing byte are not waited through to know whether a message follows.
const BLANKS_MAX: usize = 4_096;

/// What a line is.
enum Line {
    Blank,
    Message,
    Header(Wrapper),
    Trailer(Wrapper),
    Other,
}

/// A message or stray lines that go on.
struct Growing {
    stray: bool,
    /// Where it begins, and where its last line that is not blank ends.
    range: Range<u64>,
}

/// A wrapper that goes on.
struct Open {
    header: Option<Arc<Header>>,
    /// False of the batch around messages that no BHS heads.
    told: bool,
    counted: u64,
}

/// Takes files, batches and messages apart. Give it bytes with [`Splitter::push`], take what [`Splitter::next_item`] has, and say with
/// [`Splitter::finish`] that nothing follows.
///
/// A message begins at a line with MSH and ends before the next one, before a wrapper's segment, or at an MLLP framing byte. Lines end with CR, LF
/// or both; byte order marks, blanks and blank lines around belong to nothing. UTF-16 and UTF-32 are told by the first bytes; then a message is
/// cut out in that encoding, as it stands there.
pub struct Splitter {
    message_bytes_max: usize,
    buffer: BytesMut,
    // All offsets are those of the whole input.
    /// Where the buffer begins.
    base: u64,
    /// Where the line at hand begins.
    line: u64,
    /// Up to where its end has been looked for.
    scanned: u64,
    growing: Option<Growing>,
    /// True while the rest of something too long is skipped, up to the next line that begins something.
    skipping: bool,
    /// True if the line at hand lost its beginning to that.
    mid_line: bool,
    finished: bool,
    /// Known from the first four bytes on.
    encoding: Option<Option<Wide>>,
    file: Option<Open>,
    batch: Option<Open>,
    number: u64,
    ready: VecDeque<BatchItem>,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new(MESSAGE_BYTES_MAX)
    }
}

impl Splitter {
    /// A splitter that cuts messages longer than `message_bytes_max`, and holds no more than that and what was pushed last.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max: message_bytes_max.min(MESSAGE_BYTES_MAX),
            buffer: BytesMut::new(),
            base: 0,
            line: 0,
            scanned: 0,
            growing: None,
            skipping: false,
            mid_line: false,
            finished: false,
            encoding: None,
            file: None,
            batch: None,
            number: 0,
            ready: VecDeque::new(),
        }
    }

    /// Adds the next bytes of the input.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Says that nothing follows.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next item. `None`: push more bytes; after [`Splitter::finish`]: that was all.
    pub fn next_item(&mut self) -> Option<BatchItem> {
        while self.ready.is_empty() && self.step() {}
        self.ready.pop_front()
    }

    /// Looks at one line. False if there is no whole one.
    fn step(&mut self) -> bool {
        if self.encoding.is_none() {
            if self.buffer.len() < 4 && !self.finished {
                return false;
            }
            self.encoding = Some(Wide::detect(&self.buffer).map(|(wide, _)| wide));
        }
        let unit_bytes = self.wide().map_or(1, Wide::unit_bytes) as u64;
        let unseen = self.from(self.scanned);
        let Some(found) = self.line_end(unseen) else {
            self.scanned += unseen.len() as u64 / unit_bytes * unit_bytes;
            if !self.finished {
                self.cut_what_is_too_long();
                return false;
            }
            let end = self.base + self.buffer.len() as u64;
            if self.line == end {
                return self.end();
            }
            self.take_line(end, end);
            self.next_line(end);
            return true;
        };
        let end = self.scanned + found as u64;
        let after = end + unit_bytes;
        let is_framing = matches!(self.unit(end), Some(0x0B | 0x1C));
        // FS before each CR is an oddity of one sender, not the end of its message: what follows decides.
        let ends_frame = is_framing
            && match self.message_follows(after) {
                Some(follows) => follows,
                None => return false,
            };
        self.take_line(end, if is_framing { end } else { after });
        if ends_frame {
            self.flush();
        }
        self.next_line(after);
        true
    }

    fn wide(&self) -> Option<Wide> {
        self.encoding.flatten()
    }

    /// What the buffer has from an offset on.
    fn from(&self, offset: u64) -> &[u8] {
        usize::try_from(offset.saturating_sub(self.base)).ok().and_then(|at| self.buffer.get(at..)).unwrap_or_default()
    }

    /// The character at an offset, if it is there as a whole.
    fn unit(&self, offset: u64) -> Option<u32> {
        match self.wide() {
            Some(wide) => wide.unit(self.from(offset), 0),
            None => self.from(offset).first().map(|b| u32::from(*b)),
        }
    }

    /// Where CR, LF, VT or FS stands, which end a line.
    fn line_end(&self, bytes: &[u8]) -> Option<usize> {
        let ends = |unit: u32| matches!(unit, 0x0A | 0x0D | 0x0B | 0x1C);
        match self.wide() {
            None => {
                let line = memchr::memchr2(b'\r', b'\n', bytes);
                let frame = memchr::memchr2(0x0B, 0x1C, bytes.get(..line.unwrap_or(bytes.len())).unwrap_or_default());
                frame.or(line)
            }
            Some(wide) => (0..bytes.len()).step_by(wide.unit_bytes()).find(|at| wide.unit(bytes, *at).is_some_and(ends)),
        }
    }

    /// Whether a message or wrapper, or nothing at all, follows after a framing byte. `None`: not known yet.
    fn message_follows(&self, after: u64) -> Option<bool> {
        let rest = self.from(after);
        let start = self.text_start(rest);
        if start > BLANKS_MAX {
            return Some(true);
        }
        let (head, length) = self.head(rest.get(start..).unwrap_or_default());
        if length < HEAD && !self.finished {
            return None;
        }
        Some(!matches!(classify(head.get(..length).unwrap_or_default()), Line::Other))
    }

    /// Where the text of a line begins: behind a byte order mark, framing bytes and blanks.
    fn text_start(&self, bytes: &[u8]) -> usize {
        let Some(wide) = self.wide() else { return message_start(bytes) };
        let blank = |unit: u32| matches!(unit, 0xFEFF | 0x09 | 0x0A | 0x0B | 0x0D | 0x1C | 0x20);
        (0..bytes.len()).step_by(wide.unit_bytes()).find(|at| !wide.unit(bytes, *at).is_some_and(blank)).unwrap_or(bytes.len())
    }

    /// The first characters in one byte each, and how many there are.
    fn head(&self, bytes: &[u8]) -> ([u8; HEAD], usize) {
        let (mut head, mut length) = ([0; HEAD], 0);
        for place in &mut head {
            let unit = match self.wide() {
                Some(wide) => wide.unit(bytes, length * wide.unit_bytes()),
                None => bytes.get(length).map(|b| u32::from(*b)),
            };
            let Some(unit) = unit else { break };
            *place = u8::try_from(unit).unwrap_or(b'?');
            length += 1;
        }
        (head, length)
    }

    /// The line at hand ends at `end`; what it belongs to ends at `stop`.
    fn take_line(&mut self, end: u64, stop: u64) {
        let line = self.from(self.line);
        let line = line.get(..usize::try_from(end - self.line).unwrap_or(0)).unwrap_or_default();
        let lead = self.text_start(line);
        let start = self.line + lead as u64;
        let text = line.get(lead..).unwrap_or_default();
        let (head, length) = self.head(text);
        let kind = if self.mid_line { Line::Other } else { classify(head.get(..length).unwrap_or_default()) };
        match kind {
            Line::Blank => {}
            Line::Other if self.skipping => {}
            Line::Other => match &mut self.growing {
                Some(growing) => growing.range.end = stop,
                None => self.growing = Some(Growing { stray: true, range: start..stop }),
            },
            Line::Message => {
                self.flush();
                self.growing = Some(Growing { stray: false, range: start..stop });
            }
            Line::Header(wrapper) => {
                let header = Header::read(text).ok().map(Arc::new);
                self.flush();
                self.close(wrapper, None, &[Flaw::NoTrailer]);
                if wrapper == Wrapper::Batch
                    && let Some(file) = &mut self.file
                {
                    file.counted += 1;
                }
                let open = Some(Open { header: header.clone(), told: true, counted: 0 });
                match wrapper {
                    Wrapper::File => self.file = open,
                    Wrapper::Batch => self.batch = open,
                }
                self.ready.push_back(BatchItem::Opened(wrapper, header));
            }
            Line::Trailer(wrapper) => {
                let (stated, flaw) = match self.stated(text) {
                    Ok(stated) => (stated, None),
                    Err(flaw) => (None, Some(flaw)),
                };
                self.flush();
                self.trailer(wrapper, stated, flaw);
            }
        }
    }

    /// Goes on behind a line, and gives back the memory of what is done with.
    fn next_line(&mut self, at: u64) {
        (self.line, self.scanned, self.mid_line) = (at, at, false);
        self.drop_before(self.growing.as_ref().map_or(at, |growing| growing.range.start));
    }

    fn drop_before(&mut self, offset: u64) {
        let done = usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.advance(done);
        self.base += done as u64;
    }

    /// What has grown is whole.
    fn flush(&mut self) {
        self.skipping = false;
        if let Some(Growing { stray, range }) = self.growing.take() {
            self.drop_before(range.start);
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let oversize = length > self.message_bytes_max;
            let kept = length.min(self.message_bytes_max).min(self.buffer.len());
            let bytes = self.buffer.split_to(kept).freeze();
            self.base += kept as u64;
            self.give(stray, range, bytes, oversize);
        }
    }

    fn give(&mut self, stray: bool, range: Range<u64>, bytes: Bytes, oversize: bool) {
        self.number += 1;
        let extract = Extract { range, bytes, number: self.number, oversize };
        if stray {
            self.ready.push_back(BatchItem::Stray(extract));
            return;
        }
        if self.batch.is_none()
            && let Some(file) = &mut self.file
        {
            // Messages that no BHS heads are a batch too.
            file.counted += 1;
        }
        self.batch.get_or_insert(Open { header: None, told: false, counted: 0 }).counted += 1;
        self.ready.push_back(BatchItem::Message(extract));
    }

    /// While a line has no end yet: nothing longer than the limit is kept.
    fn cut_what_is_too_long(&mut self) {
        let from = self.growing.as_ref().map_or(self.line, |growing| growing.range.start);
        if self.scanned - from <= self.message_bytes_max as u64 {
            return;
        }
        if self.growing.is_none() && !self.skipping && !self.mid_line {
            // A line that is too long alone: what it is stands at its beginning.
            self.take_line(self.scanned, self.scanned);
        }
        if let Some(growing) = &mut self.growing {
            growing.range.end = self.scanned;
            self.flush();
        }
        self.skipping = true;
        self.mid_line |= self.scanned > self.line;
        self.drop_before(self.scanned);
        self.line = self.scanned;
    }

    /// BTS-1 or FTS-1.
    fn stated(&self, trailer: &[u8]) -> Result<Option<u64>, Flaw> {
        let text = match self.wide() {
            Some(wide) => wide.decode(trailer).unwrap_or_default(),
            None => String::from_utf8_lossy(trailer).into_owned(),
        };
        let Some(separator) = text.chars().nth(3) else { return Ok(None) };
        match text.split(separator).nth(1).map(str::trim) {
            None | Some("") => Ok(None),
            Some(number) => number.parse().map(Some).map_err(|_| Flaw::NoCount),
        }
    }

    fn trailer(&mut self, wrapper: Wrapper, stated: Option<u64>, flaw: Option<Flaw>) {
        if wrapper == Wrapper::File {
            self.close(Wrapper::Batch, None, &[Flaw::NoTrailer]);
        }
        let open = match wrapper {
            Wrapper::File => &mut self.file,
            Wrapper::Batch => &mut self.batch,
        };
        // Messages without BHS are closed by a BTS all the same.
        let untold = !open.as_ref().is_some_and(|open| open.told);
        open.get_or_insert(Open { header: None, told: false, counted: 0 }).told = true;
        let flaws: Vec<Flaw> = untold.then_some(Flaw::NoHeader).into_iter().chain(flaw).collect();
        self.close(wrapper, stated, &flaws);
    }

    /// Ends a wrapper, if one is open, and what is open within.
    fn close(&mut self, wrapper: Wrapper, stated: Option<u64>, flaws: &[Flaw]) {
        if wrapper == Wrapper::File && self.batch.is_some() {
            self.close(Wrapper::Batch, None, &[Flaw::NoTrailer]);
        }
        let open = match wrapper {
            Wrapper::File => self.file.take(),
            Wrapper::Batch => self.batch.take(),
        };
        let Some(Open { header, told: true, counted }) = open else { return };
        let mut flaws = flaws.to_vec();
        if let Some(stated) = stated.filter(|stated| *stated != counted) {
            flaws.push(Flaw::Count { stated, counted });
        }
        self.ready.push_back(BatchItem::Closed(Closed { wrapper, header, stated, counted, flaws }));
    }

    /// The input's end. True if there was something to end.
    fn end(&mut self) -> bool {
        self.flush();
        self.close(Wrapper::File, None, &[Flaw::NoTrailer]);
        self.close(Wrapper::Batch, None, &[Flaw::NoTrailer]);
        !self.ready.is_empty()
    }
}

/// So many characters of a line tell what it is.
const HEAD: usize = 5;

/// What a line is, by its first characters. A wrapper's name may stand alone, or be followed by a separator.
fn classify(head: &[u8]) -> Line {
    let Some((name, after)) = head.split_first_chunk::<3>() else { return if head.is_empty() { Line::Blank } else { Line::Other } };
    let is_separator = match *after {
        [] => true,
        // A line of a document in base64 may begin like that.
        [b'+' | b'/', next, ..] => next.is_ascii_punctuation(),
        [separator, ..] => separator.is_ascii_punctuation(),
    };
    if !is_separator {
        return Line::Other;
    }
    match &name.map(|b| b.to_ascii_uppercase()) {
        b"MSH" => Line::Message,
        b"FHS" => Line::Header(Wrapper::File),
        b"BHS" => Line::Header(Wrapper::Batch),
        b"BTS" => Line::Trailer(Wrapper::Batch),
        b"FTS" => Line::Trailer(Wrapper::File),
        _ => Line::Other,
    }
}

/// All items of an input that is in memory.
pub fn batch_items(bytes: &[u8]) -> Vec<BatchItem> {
    let mut splitter = Splitter::default();
    splitter.push(bytes);
    splitter.finish();
    std::iter::from_fn(|| splitter.next_item()).collect()
}

/// Whether a frame holds more than one message: a file, a batch, or a further MSH at the beginning of a line.
pub fn holds_several(frame: &[u8]) -> bool {
    if Wide::detect(frame).is_some() {
        return batch_items(frame).len() > 1;
    }
    let start = message_start(frame);
    let rest = frame.get(start..).unwrap_or_default();
    if matches!(classify(rest.get(..HEAD).unwrap_or(rest)), Line::Header(_) | Line::Trailer(_)) {
        return true;
    }
    let begins_message = |line_end: usize| {
        let line = rest.get(line_end + 1..).unwrap_or_default();
        // Blank lines are looked at by themselves: many of them do not cost their square.
        let line = line.get(line.iter().take_while(|b| matches!(b, b' ' | b'\t' | 0xEF | 0xBB | 0xBF)).count()..).unwrap_or_default();
        line.len() > 3 && matches!(classify(line.get(..HEAD).unwrap_or(line)), Line::Message)
    };
    memchr::memchr2_iter(b'\r', b'\n', rest).any(begins_message) || memchr::memchr2_iter(0x0B, 0x1C, rest).any(begins_message)
}

#[cfg(test)]
mod tests;
