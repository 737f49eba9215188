//! MLLP (HL7 v2.9 appendix C, "Minimal Lower Layer Protocol"): `0x0B payload 0x1C 0x0D`, tolerant of what real peers send.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memchr::{memchr, memmem};
use tokio_util::codec::{Decoder, Encoder};

/// Start of a frame, `<VT>`.
const START: u8 = 0x0B;
/// End of a frame, `<FS>`. It cannot be part of a character in any set that HL7 table 0211 allows over MLLP.
const END: u8 = 0x1C;
/// The byte that follows `<FS>`; some peers leave it out.
const CARRIAGE_RETURN: u8 = 0x0D;
/// How a frame that was begun anew looks: the peer gave up in the middle of the one before.
const RESTART: &[u8] = b"\x0BMSH";

/// The default limit for the payload of one frame, in bytes: 64 MiB, room for a scanned document in OBX-5.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One payload, without its framing. Shares the read buffer's memory; nothing is copied.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What stood between `<VT>` and `<FS>`; may be empty.
    pub payload: Bytes,
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
    /// True between `<VT>` and `<FS>`; then the buffer begins with the payload.
    inside: bool,
    /// How much of the payload has been searched for its end, so that a frame in many packets is scanned once.
    scanned: usize,
    /// True directly after `<FS>`, where one carriage return belongs to the frame.
    after_end: bool,
    noise_bytes: u64,
    restarts: u64,
}

impl Default for Mllp {
    fn default() -> Self {
        Self::new(FRAME_BYTES_MAX)
    }
}

impl Mllp {
    /// A decoder and encoder that refuses payloads over `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, inside: false, scanned: 0, after_end: false, noise_bytes: 0, restarts: 0 }
    }

    /// Refuses payloads over `limit_bytes` from the next one on.
    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// Takes the next frame out of `buffer`. `None`: the buffer holds no whole frame yet; add bytes and ask again.
    ///
    /// Bytes outside of frames are skipped and counted. A frame ends at `<FS>`, whether or not a carriage return follows.
    /// If a new `<VT>MSH` stands within a frame, the peer began anew: what came before it is skipped and counted too.
    pub fn next_frame(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameTooLarge> {
        if !self.inside && !self.find_start(buffer) {
            return Ok(None);
        }
        let unseen = buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr(END, unseen) else {
            self.scanned = buffer.len();
            return if buffer.len() > self.limit_bytes { Err(FrameTooLarge { limit_bytes: self.limit_bytes }) } else { Ok(None) };
        };
        let length = self.scanned + at;
        if length > self.limit_bytes {
            return Err(FrameTooLarge { limit_bytes: self.limit_bytes });
        }
        let mut payload = buffer.split_to(length);
        buffer.advance(1);
        (self.inside, self.scanned, self.after_end) = (false, 0, true);
        if let Some(restart) = memmem::rfind(&payload, RESTART) {
            payload.advance(restart + 1);
            self.noise_bytes += restart as u64 + 1;
            self.restarts += 1;
        }
        Ok(Some(Frame { payload: payload.freeze() }))
    }

    /// Skips to the byte after the next `<VT>`; false if there is none yet.
    fn find_start(&mut self, buffer: &mut BytesMut) -> bool {
        if self.after_end
            && let Some(first) = buffer.first()
        {
            self.after_end = false;
            if *first == CARRIAGE_RETURN {
                buffer.advance(1);
            }
        }
        let found = memchr(START, buffer);
        let skipped = found.unwrap_or(buffer.len());
        self.noise_bytes += skipped as u64;
        buffer.advance(found.map_or(skipped, |at| at + 1));
        self.inside = found.is_some();
        self.inside
    }

    /// True if a frame has begun and not ended: what a time limit for slow frames asks, and what a truncated connection leaves behind.
    pub fn inside_frame(&self) -> bool {
        self.inside
    }

    /// How many bytes outside of frames were skipped since the last call.
    pub fn take_noise_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.noise_bytes)
    }

    /// How many frames were begun anew before they had ended, since the last call.
    pub fn take_restarts(&mut self) -> u64 {
        std::mem::take(&mut self.restarts)
    }

    /// Appends `payload` in its frame.
    pub fn write_frame(payload: &[u8], into: &mut BytesMut) {
        into.reserve(payload.len() + 3);
        into.put_u8(START);
        into.put_slice(payload);
        into.put_u8(END);
        into.put_u8(CARRIAGE_RETURN);
    }
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
