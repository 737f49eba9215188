//! What a file or batch holds, and what may be wrong with it.

use crate::hl7v2::{Fault, Header, Location};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// What wraps messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapper {
    /// FHS to FTS: batches.
    File,
    /// BHS to BTS: messages.
    Batch,
}

impl Wrapper {
    /// The segment that it begins with.
    pub fn header(self) -> &'static str {
        match self {
            Wrapper::File => "FHS",
            Wrapper::Batch => "BHS",
        }
    }

    /// The segment that it ends with.
    pub fn trailer(self) -> &'static str {
        match self {
            Wrapper::File => "FTS",
            Wrapper::Batch => "BTS",
        }
    }

    /// What its trailer counts, for a sentence: the word for one, and for another number.
    fn counted(self) -> (&'static str, &'static str) {
        match self {
            Wrapper::File => ("batch", "batches"),
            Wrapper::Batch => ("message", "messages"),
        }
    }
}

/// What is wrong with a wrapper. The messages within are read all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// BTS-1 or FTS-1 says another number than came.
    Count {
        /// What it says.
        stated: u64,
        /// What came.
        counted: u64,
    },
    /// BTS-1 or FTS-1 is no number.
    NoCount,
    /// No trailer came: the next wrapper, or the end of the input. What is missing behind it, nobody knows.
    NoTrailer,
    /// A trailer came, and no header.
    NoHeader,
}

impl Flaw {
    /// The word for counting and filtering.
    pub fn kind(&self) -> &'static str {
        match self {
            Flaw::Count { .. } | Flaw::NoCount => "batch-count",
            Flaw::NoTrailer => "batch-without-trailer",
            Flaw::NoHeader => "batch-without-header",
        }
    }

    /// What a sender is told: place and sentence, without anything of a message.
    pub fn fault(&self, of: Wrapper) -> Fault {
        let (header, trailer, (one, counted)) = (of.header(), of.trailer(), of.counted());
        let at = Location::field;
        match self {
            Flaw::Count { stated, counted: n } => {
                let counted = if *stated == 1 { one } else { counted };
                Fault::new(at(trailer, 1), Fault::INTERNAL, format!("{trailer}-1 says {stated} {counted}, and {n} came"))
            }
            Flaw::NoCount => Fault::new(at(trailer, 1), Fault::DATA_TYPE, format!("{trailer}-1 is not the number of {counted}")),
            Flaw::NoTrailer => Fault::new(at(trailer, 0), Fault::SEGMENT_SEQUENCE, format!("no {trailer} came; {counted} may be missing at the end")),
            Flaw::NoHeader => Fault::new(at(header, 0), Fault::SEGMENT_SEQUENCE, format!("{trailer} came without {header}")),
        }
    }
}

/// Bytes of the input, and where they stand.
#[derive(Clone)]
pub struct Extract {
    /// From the first byte of the whole input.
    pub range: Range<u64>,
    /// The bytes as they stand there, the last segment's end included.
    pub bytes: Bytes,
    /// Which message of the input it is, from 1. Lines without MSH count too: they may be a message that lost its head.
    pub number: u64,
    /// True if it is longer than the limit: these are only its first bytes, and the rest was skipped.
    pub oversize: bool,
}

impl std::fmt::Debug for Extract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Extract({:?}, <patient data>)", self.range)
    }
}

/// How a wrapper ended.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Which.
    pub wrapper: Wrapper,
    /// FHS or BHS; `None` if there was none, or if it could not be read.
    pub header: Option<Arc<Header>>,
    /// What BTS-1 or FTS-1 says; `None` if it is empty, or if there is no trailer. Empty is allowed.
    pub stated: Option<u64>,
    /// Messages of the batch, or batches of the file.
    pub counted: u64,
    /// What is wrong with it; mostly nothing.
    pub flaws: Vec<Flaw>,
}

/// What an input holds, in its order.
#[derive(Clone, Debug)]
pub enum BatchItem {
    /// FHS or BHS; `None` if it says nothing that can be read.
    Opened(Wrapper, Option<Arc<Header>>),
    /// A message, from its MSH to before the next one.
    Message(Extract),
    /// Lines that no MSH heads. Reading them says what is wrong, instead of losing them.
    Stray(Extract),
    /// BTS or FTS, or where one should stand. Follows the last message of what it closes.
    Closed(Closed),
}
