//! From an offset in a scalar's text to the offset in the file: folding, indentation and escapes lie between.

use crate::diagnostic::{SourceId, Span};
use std::ops::Range;

/// For each byte of a text, its place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    source: SourceId,
    offsets: Vec<u32>,
    end: u32,
}

impl Places {
    /// A text that stands in the file exactly as it is, from byte `start` on.
    pub(crate) fn verbatim(source: SourceId, start: u32, length: usize) -> Self {
        let end = start + u32::try_from(length).unwrap_or(0);
        Self { source, offsets: (start..end).collect(), end }
    }

    /// A text that YAML folded: aligned with `written`, what the file has from byte `start` on. Only white space may differ between the two.
    pub(crate) fn folded(source: SourceId, text: &str, written: &str, start: u32) -> Self {
        let (bytes, from) = (text.as_bytes(), written.as_bytes());
        let mut offsets = Vec::with_capacity(bytes.len());
        let (mut i, mut j) = (0, 0);
        let place = |j: usize| start + u32::try_from(j.min(from.len())).unwrap_or(0);
        while i < bytes.len() {
            let blank = run(bytes, i);
            let gap = run(from, j);
            if blank == 0 {
                j += gap;
                offsets.push(place(j));
                (i, j) = (i + 1, j + 1);
            } else {
                (0..blank).for_each(|k| offsets.push(place(j + k.min(gap.saturating_sub(1)))));
                (i, j) = (i + blank, j + gap);
            }
        }
        let end = offsets.last().map_or(start, |last| last + 1).min(place(from.len()));
        Self { source, offsets, end }
    }

    /// The place of a range of the text; of one past its end, the place after the last byte.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        let start = self.offsets.get(range.start).copied().unwrap_or(self.end);
        let end = if range.end <= range.start { start } else { self.offsets.get(range.end - 1).map_or(self.end, |last| (last + 1).min(self.end)) };
        Span { source: self.source, start, end: end.max(start) }
    }
}

/// How many bytes of white space begin at `at`.
fn run(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).unwrap_or_default().iter().take_while(|b| b.is_ascii_whitespace()).count()
}
