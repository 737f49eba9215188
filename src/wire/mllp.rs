//! MLLP (HL7 v2.9 appendix C, "Minimal Lower Layer Protocol"): `0x0B payload 0x1C 0x0D`, tolerant of what real peers send.

use crate::wire::framing::{CARRIAGE_RETURN, END, START};
use crate::wire::{Sample, Style, Tolerance};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use memchr::{memchr, memmem};
use tokio_util::codec::{Decoder, Encoder};

/// How a frame that was begun anew looks: the peer gave up in the middle of the one before.
const RESTART: &[u8] = b"\x0BMSH";

/// The default limit for the payload of one frame, in bytes: 64 MiB, room for a scanned document in OBX-5.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One payload, without its framing. Shares the read buffer's memory; nothing is copied.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What stood between `<VT>` and `<FS>`; may be empty.
    pub payload: Bytes,
    /// How it was framed.
    pub style: Style,
    /// True if no end block came, and the frame was taken for whole all the same ([`Tolerance::no_end`]).
    pub unended: bool,
}

/// The payload is longer than the limit. The connection cannot go on, since the frame's end is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame is longer than {limit_bytes} bytes")]
pub struct FrameTooLarge {
    /// The limit that was passed.
    pub limit_bytes: usize,
}

/// The state of one direction of one connection.
#[derive(Debug)]
pub struct Mllp {
    limit_bytes: usize,
    tolerance: Tolerance,
    /// How the frame at hand is framed; then the buffer begins with the payload. `None` between frames.
    inside: Option<Style>,
    /// How much of the payload has been searched for its end, so that a frame in many packets is scanned once.
    scanned: usize,
    /// True directly after `<FS>`, where one carriage return belongs to the frame.
    after_end: bool,
    /// Between frames: true if the buffer begins a line, where a message without framing may begin.
    begins_line: bool,
    noise_bytes: u64,
    /// True once something else than line ends and blanks was skipped.
    strange: bool,
    restarts: u64,
    sample: Sample,
    /// True once the sample's run has ended.
    sample_ended: bool,
    sampled: bool,
}

/// Where a frame ends.
struct Ending {
    /// Bytes of payload.
    length: usize,
    /// Bytes of the end block.
    skip: usize,
    /// True if there was no end block where one should be.
    unended: bool,
}

impl Default for Mllp {
    fn default() -> Self {
        Self::new(FRAME_BYTES_MAX)
    }
}

impl Mllp {
    /// A decoder and encoder that refuses payloads over `limit_bytes`, and takes MLLP alone.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            tolerance: Tolerance::default(),
            inside: None,
            scanned: 0,
            after_end: false,
            begins_line: true,
            noise_bytes: 0,
            strange: false,
            restarts: 0,
            sample: Sample::default(),
            sample_ended: false,
            sampled: false,
        }
    }

    /// Refuses payloads over `limit_bytes` from the next one on.
    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// Takes what `tolerance` says, from the next frame on.
    pub fn set_tolerance(&mut self, tolerance: Tolerance) {
        self.tolerance = tolerance;
    }

    /// Takes the next frame out of `buffer`. `None`: the buffer holds no whole frame yet; add bytes and ask again.
    ///
    /// Bytes outside of frames are skipped and counted. A frame ends at `<FS>`, whether or not a carriage return follows.
    /// If a new `<VT>MSH` stands within a frame, the peer began anew: what came before it is skipped and counted too.
    pub fn next_frame(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameTooLarge> {
        let Some(style) = self.inside.or_else(|| self.find_start(buffer)) else { return Ok(None) };
        let ending = match style {
            Style::Mllp => self.mllp_end(buffer),
            Style::Other => self.other_end(buffer),
            Style::Bare => self.bare_end(buffer),
        };
        let too_large = FrameTooLarge { limit_bytes: self.limit_bytes };
        let Some(ending) = ending else {
            self.scanned = buffer.len();
            return if buffer.len() > self.limit_bytes { Err(too_large) } else { Ok(None) };
        };
        if ending.length > self.limit_bytes {
            return Err(too_large);
        }
        let payload = buffer.split_to(ending.length);
        buffer.advance(ending.skip);
        self.after_end = ending.skip > 0 && style != Style::Other;
        Ok(Some(self.frame(payload, style, ending.unended)))
    }

    fn frame(&mut self, mut payload: BytesMut, style: Style, unended: bool) -> Frame {
        (self.inside, self.scanned, self.begins_line) = (None, 0, true);
        if style == Style::Mllp
            && let Some(restart) = memmem::rfind(&payload, RESTART)
        {
            payload.advance(restart + 1);
            self.noise_bytes += restart as u64 + 1;
            self.restarts += 1;
        }
        Frame { payload: payload.freeze(), style, unended }
    }

    /// `<FS>`; without it, if that is tolerated, the next frame's beginning behind a segment's end.
    fn mllp_end(&self, buffer: &[u8]) -> Option<Ending> {
        let end = memchr(END, buffer.get(self.scanned..).unwrap_or_default()).map(|at| self.scanned + at);
        if self.tolerance.no_end {
            let from = self.scanned.saturating_sub(RESTART.len());
            let unseen = buffer.get(from..end.unwrap_or(buffer.len())).unwrap_or_default();
            let next = memmem::find_iter(unseen, RESTART).map(|at| from + at).find(|at| ends_segment(buffer.get(..*at).unwrap_or_default()));
            if let Some(length) = next {
                return Some(Ending { length, skip: 0, unended: true });
            }
        }
        end.map(|length| Ending { length, skip: 1, unended: false })
    }

    fn other_end(&self, buffer: &[u8]) -> Option<Ending> {
        // Without such framing any more (the settings were changed) the frame never ends, and its time limit says so.
        let mark = self.tolerance.other.as_ref()?.end();
        let from = self.scanned.saturating_sub(mark.len());
        let at = memmem::find(buffer.get(from..).unwrap_or_default(), mark)?;
        Some(Ending { length: from + at, skip: mark.len(), unended: false })
    }

    /// `<FS>`, or a line that begins the next message. Within a file or batch messages follow each other: that ends by a pause.
    fn bare_end(&self, buffer: &[u8]) -> Option<Ending> {
        let from = self.scanned.saturating_sub(HEADER_BYTES);
        let end = memchr(END, buffer.get(self.scanned..).unwrap_or_default()).map(|at| self.scanned + at);
        let unseen = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let is_batch = !is_named(buffer, &[b"MSH"]);
        let line_ends = memchr::memchr2_iter(b'\r', b'\n', unseen.get(from..).unwrap_or_default()).map(|at| from + at + 1);
        let begins = |rest: &[u8]| rest.first() == Some(&START) || (!is_batch && is_header(rest)) || (is_batch && is_named(rest, &[b"FHS"]) && is_header(rest));
        if let Some(length) = line_ends.into_iter().find(|at| buffer.get(*at..).is_some_and(begins)) {
            return Some(Ending { length, skip: 0, unended: false });
        }
        end.map(|length| Ending { length, skip: 1, unended: false })
    }

    /// Skips to the beginning of the next payload; `None` if there is none yet.
    fn find_start(&mut self, buffer: &mut BytesMut) -> Option<Style> {
        if self.after_end
            && let Some(first) = buffer.first()
        {
            self.after_end = false;
            if *first == CARRIAGE_RETURN {
                buffer.advance(1);
            }
        }
        let mut found = memchr(START, buffer).map(|at| (at, 1, Style::Mllp));
        if let Some(other) = &self.tolerance.other
            && let Some(at) = memmem::find(buffer, other.start())
            && found.is_none_or(|(first, ..)| at < first)
        {
            found = Some((at, other.start().len(), Style::Other));
        }
        if self.tolerance.unframed
            && let Some(at) = self.bare_start(buffer)
            && found.is_none_or(|(first, ..)| at < first)
        {
            found = Some((at, 0, Style::Bare));
        }
        let skipped = found.map_or_else(|| buffer.len() - self.perhaps_a_start(buffer), |(at, ..)| at);
        self.skip_noise(buffer.get(..skipped).unwrap_or_default());
        buffer.advance(skipped + found.map_or(0, |(_, mark, _)| mark));
        self.inside = found.map(|(.., style)| style);
        self.scanned = 0;
        if self.inside.is_some() {
            // What was blank says nothing about the peer.
            self.sample_ended = self.sample.is_strange();
            if !self.sample_ended {
                self.sample = Sample::default();
            }
        }
        self.inside
    }

    fn skip_noise(&mut self, skipped: &[u8]) {
        let Some(last) = skipped.last() else { return };
        self.begins_line = matches!(*last, b'\r' | b'\n' | BOM_END);
        self.noise_bytes += skipped.len() as u64;
        self.strange |= !skipped.iter().all(|b| b.is_ascii_whitespace() || *b == 0);
        if !self.sampled && !self.sample_ended {
            self.sample.add(skipped);
        }
    }

    /// Where a line begins with a header segment.
    fn bare_start(&self, buffer: &[u8]) -> Option<usize> {
        if self.begins_line && is_header(buffer) {
            return Some(0);
        }
        let ends = memchr::memchr3_iter(b'\r', b'\n', BOM_END, buffer);
        ends.map(|at| at + 1).find(|at| buffer.get(*at..).is_some_and(is_header))
    }

    /// How many of the last bytes may become the beginning of a payload when more come.
    fn perhaps_a_start(&self, buffer: &[u8]) -> usize {
        let other = self.tolerance.other.as_ref().map_or(&[][..], |other| other.start());
        let tail = |n: usize| buffer.len().checked_sub(n).and_then(|at| buffer.split_at_checked(at));
        let partly = |n: &usize| tail(*n).is_some_and(|(_, tail)| other.starts_with(tail));
        let bare = |n: &usize| {
            tail(*n).is_some_and(|(before, tail)| {
                let begins_line = before.last().map_or(self.begins_line, |b| matches!(*b, b'\r' | b'\n' | BOM_END));
                begins_line && HEADERS.iter().any(|name| name.get(..tail.len()).is_some_and(|head| head.eq_ignore_ascii_case(tail)))
            })
        };
        let of_other = (1..other.len()).rev().find(partly).unwrap_or(0);
        let of_bare = if self.tolerance.unframed { (1..HEADER_BYTES).rev().find(bare).unwrap_or(0) } else { 0 };
        of_other.max(of_bare)
    }

    /// Would the frame at hand be taken for whole if nothing more came? Then a pause ends it.
    pub fn may_end_here(&self, buffer: &[u8]) -> bool {
        match self.inside {
            Some(Style::Bare) => ends_segment(buffer),
            Some(Style::Mllp) => self.tolerance.no_end && ends_segment(buffer),
            Some(Style::Other) | None => false,
        }
    }

    /// A pause came, after which [`Mllp::may_end_here`] was still true: takes the frame at hand.
    pub fn take_after_pause(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        let style = self.inside.filter(|_| self.may_end_here(buffer))?;
        let payload = buffer.split();
        Some(self.frame(payload, style, style == Style::Mllp))
    }

    /// The peer has closed its side: takes the frame at hand, if it may be whole. A message without framing needs no segment end then.
    pub fn take_at_end(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        if self.inside == Some(Style::Bare) {
            let payload = buffer.split();
            return Some(self.frame(payload, Style::Bare, false));
        }
        self.take_after_pause(buffer)
    }

    /// True if what has come of the frame at hand looks like a whole message, and only its end block is missing.
    pub fn lacks_end(&self, buffer: &[u8]) -> bool {
        self.inside == Some(Style::Mllp) && is_header(buffer) && ends_segment(buffer)
    }

    /// True if a frame has begun and not ended: what a time limit for slow frames asks, and what a truncated connection leaves behind.
    pub fn inside_frame(&self) -> bool {
        self.inside.is_some()
    }

    /// How many bytes outside of frames were skipped since the last call.
    pub fn take_noise_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.noise_bytes)
    }

    /// True if something else than line ends and blanks was skipped outside of frames, since the beginning or [`Mllp::forget_skipped_text`].
    pub fn has_skipped_text(&self) -> bool {
        self.strange
    }

    /// What was skipped so far counts no more: other rules are in force.
    pub fn forget_skipped_text(&mut self) {
        self.strange = false;
    }

    /// How the frame at hand is framed; `None` between frames.
    pub fn style_at_hand(&self) -> Option<Style> {
        self.inside
    }

    /// How many frames were begun anew before they had ended, since the last call.
    pub fn take_restarts(&mut self) -> u64 {
        std::mem::take(&mut self.restarts)
    }

    /// The first bytes that came outside of frames, once: when there are enough to judge by, when a frame follows them, or at the connection's end.
    pub fn take_sample(&mut self, at_end: bool) -> Option<Sample> {
        let due = !self.sampled && self.sample.is_strange() && (at_end || self.sample_ended || self.sample.is_enough());
        due.then(|| {
            self.sampled = true;
            std::mem::take(&mut self.sample)
        })
    }

    /// Appends `payload` in its frame.
    pub fn write_frame(payload: &[u8], into: &mut BytesMut) {
        into.reserve(payload.len() + 3);
        into.put_u8(START);
        into.put_slice(payload);
        into.put_u8(END);
        into.put_u8(CARRIAGE_RETURN);
    }

    /// Appends an answer, framed as the message was that it answers.
    pub fn write_answer(&self, style: Style, payload: &[u8], into: &mut BytesMut) {
        match (style, &self.tolerance.other) {
            (Style::Bare, _) => into.put_slice(payload),
            (Style::Other, Some(other)) => {
                into.put_slice(other.start());
                into.put_slice(payload);
                into.put_slice(other.end());
            }
            (Style::Mllp | Style::Other, _) => Self::write_frame(payload, into),
        }
    }
}

/// The last byte of UTF-8's byte order mark.
const BOM_END: u8 = 0xBF;
const HEADERS: &[&[u8]] = &[b"MSH", b"FHS", b"BHS"];
/// A header segment is told by its name and the separator behind it.
const HEADER_BYTES: usize = 4;

fn is_named(bytes: &[u8], names: &[&[u8]]) -> bool {
    bytes.get(..3).is_some_and(|head| names.iter().any(|name| name.eq_ignore_ascii_case(head)))
}

/// Lines of a document in base64 may begin with MSH and a sign of that; no message that is told by its header alone has those for separators.
fn is_header(bytes: &[u8]) -> bool {
    is_named(bytes, HEADERS) && bytes.get(3).is_some_and(|b| b.is_ascii_punctuation() && !matches!(b, b'+' | b'/' | b'='))
}

fn ends_segment(bytes: &[u8]) -> bool {
    matches!(bytes.last(), Some(b'\r' | b'\n'))
}

impl Decoder for Mllp {
    type Item = Frame;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Self::Error> {
        self.next_frame(buffer).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Self::Error> {
        // A frame without its end is not a message: the peer has no acknowledgement for it and sends it again.
        self.decode(buffer)
    }
}

impl Encoder<Bytes> for Mllp {
    type Error = std::io::Error;

    fn encode(&mut self, payload: Bytes, into: &mut BytesMut) -> Result<(), Self::Error> {
        Self::write_frame(&payload, into);
        Ok(())
    }
}
