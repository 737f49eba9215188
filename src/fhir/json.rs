//! JSON text under way to a server, a file or a screen. A large text that stands in the message is passed on as it is, and never copied.

use bytes::Bytes;
use std::io;

/// JSON text in pieces: what was written, and the shared texts between. Cheap to clone once it is closed.
#[derive(Clone, Default)]
pub struct Json {
    closed: Vec<Bytes>,
    open: Vec<u8>,
    closed_bytes: usize,
}

/// It holds patient data: it prints as a placeholder.
impl std::fmt::Debug for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<json>")
    }
}

impl Json {
    /// Nothing yet, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { open: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.closed_bytes + self.open.len()
    }

    /// Was nothing written?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where bytes are appended.
    #[inline]
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.open
    }

    /// Appends bytes that somebody else holds, too.
    pub(crate) fn share(&mut self, bytes: &Bytes) {
        self.close();
        self.closed_bytes += bytes.len();
        self.closed.push(bytes.clone());
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed_bytes += self.open.len();
            self.closed.push(Bytes::from(std::mem::take(&mut self.open)));
        }
    }

    /// Its pieces in order, none of them empty.
    pub fn into_pieces(mut self) -> Vec<Bytes> {
        self.close();
        self.closed
    }

    /// All of it in one piece, copied only if it has several.
    pub fn into_vec(self) -> Vec<u8> {
        if self.closed.is_empty() {
            return self.open;
        }
        let mut whole = Vec::with_capacity(self.len());
        self.pieces().for_each(|piece| whole.extend_from_slice(piece));
        whole
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.closed.iter().map(|piece| &piece[..]).chain(std::iter::once(self.open.as_slice()))
    }

    /// Writes it piece by piece.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(&self, to: &mut impl io::Write) -> io::Result<()> {
        self.pieces().try_for_each(|piece| to.write_all(piece))
    }
}

impl From<Vec<u8>> for Json {
    fn from(bytes: Vec<u8>) -> Self {
        Self { open: bytes, ..Self::default() }
    }
}

/// A part of a message's text that is held together with the message: valid UTF-8, with nothing in it that JSON escapes.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedText(Bytes);

impl SharedText {
    /// So many bytes are shared rather than copied: less is not worth a piece of its own.
    pub const BYTES_MIN: usize = 64 * 1024;

    /// `None` where the text is short, or holds what JSON escapes ([`crate::fhir::is_plain`]).
    pub fn new(bytes: Bytes) -> Option<Self> {
        let plain = bytes.len() >= Self::BYTES_MIN && std::str::from_utf8(&bytes).is_ok_and(crate::fhir::is_plain);
        plain.then_some(Self(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it was UTF-8 when it was made")
    }

    /// The bytes of the text.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }
}
