//! HL7 v2, ER7 encoding: bytes <-> messages, escapes, dictionaries 2.1 to 2.9, group structure. Pure: no I/O, no clock.

mod acknowledge;
mod address;
mod answer;
mod batch;
mod batch_answer;
mod charset;
mod conditions;
mod conform;
mod delimiters;
mod dictionary;
mod draft;
mod escape;
mod fault;
mod header;
mod index;
mod japanese;
mod message;
mod parse;
mod place;
mod profile;
mod recode;
mod split;
mod structure;
mod time;
mod tolerate;
mod unescaped;
mod version;
mod wide;
mod write;

pub use acknowledge::{AckCode, AckRequest, acknowledge, answer_in_error};
pub use address::Address;
pub use answer::{Answer, AnswerError, answered};
pub use batch::{BatchItem, Closed, Extract, Flaw, Splitter, Wrapper, batch_items, holds_several};
pub use batch_answer::{WrapperAnswer, wrap_answer};
pub use charset::Charset;
pub use conditions::{Acknowledged, Condition, Conditions};
pub use conform::{Breach, Conformance};
pub use delimiters::Delimiters;
pub use dictionary::{
    DatatypeDef, FieldDef, SegmentDef, Table, Usage, datatype, datatype_ids, event_structure, events, newest_datatype, newest_field, newest_segment,
    newest_table, segment, segment_ids, table,
};
pub use draft::{Coding, Draft, DraftSegment, Piece};
pub use fault::{Fault, Location, fault_words};
pub use header::{Header, batch_segment};
pub use message::{Level, Message, Part, Repetitions};
pub use parse::ParseOptions;
pub use place::{GroupInstance, Placement, SegmentPlace};
pub use profile::{Predicate, Profile, ProfileUsage, Rule, Validation};
pub use recode::{recode, recode_answer};
pub use split::split;
pub use structure::{Node, NodeId, Structure, structure, structures};
pub use time::{ClockTime, Moment, Precision};
pub use tolerate::{Oddity, Tolerate};
pub use version::Version;
pub use wide::{in_encoding_of, wide_encoding};
pub use write::Writer;
