//! The HL7 v2 dictionaries, 2.1 to 2.9.1, read in place from the tables that build.rs packs. Handles are plain numbers.

use crate::hl7v2::Version;

static WORDS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hl7v2.bin"));
static TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/hl7v2.txt"));

const OFFSETS_AT: u32 = 1;
const RELEASES_AT: u32 = 2;
const SEGMENT_IDS: u32 = 3;
const DATATYPE_IDS: u32 = 5;
const RELEASE_WORDS: u32 = 10;

/// The sections of a release in the packed table.
#[derive(Clone, Copy)]
enum Section {
    Structures = 0,
    Events = 1,
    Segments = 2,
    Datatypes = 3,
    Tables = 4,
}

pub(in crate::hl7v2) fn word(at: u32) -> u32 {
    let at = at as usize * 4;
    match WORDS.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

pub(in crate::hl7v2) fn string(id: u32) -> &'static str {
    let at = word(OFFSETS_AT) + id;
    TEXT.get(word(at) as usize..word(at + 1) as usize).unwrap_or("")
}

/// Where a directory begins, and how many entries it has.
fn section(version: Version, section: Section) -> (u32, u32) {
    let at = word(RELEASES_AT) + version as u32 * RELEASE_WORDS + section as u32 * 2;
    (word(at), word(at + 1))
}

/// The entry of a sorted directory whose first word's string is `key`.
fn find(at: u32, count: u32, size: u32, key: &str) -> Option<u32> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = at + middle * size;
        match string(word(entry)).cmp(key) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(entry),
        }
    }
    None
}

fn entry(version: Version, of: Section, size: u32, key: &str) -> Option<u32> {
    let (at, count) = section(version, of);
    find(at, count, size, key)
}

fn newest<T>(f: impl FnMut(Version) -> Option<T>) -> Option<T> {
    Version::ALL.into_iter().rev().find_map(f)
}

/// What a release says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentDef(u32);

impl SegmentDef {
    /// `PID`.
    pub fn id(self) -> &'static str {
        string(word(self.0))
    }

    /// `Patient Identification`.
    pub fn name(self) -> &'static str {
        string(word(self.0 + 1))
    }

    /// How many fields the release defines.
    pub fn field_count(self) -> usize {
        word(self.0 + 3) as usize
    }

    /// Field `n`, from 1.
    pub fn field(self, n: usize) -> Option<FieldDef> {
        part(word(self.0 + 2), word(self.0 + 3), n)
    }
}

fn part(at: u32, count: u32, n: usize) -> Option<FieldDef> {
    let n = u32::try_from(n).ok()?.checked_sub(1)?;
    (n < count).then(|| FieldDef(at + n * 5))
}

/// Field, component or subcomponent of a segment or data type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDef(u32);

impl FieldDef {
    /// `Patient Identifier List`.
    pub fn name(self) -> &'static str {
        string(word(self.0))
    }

    /// `CX`; `varies` when another field names the type; empty for a withdrawn field whose type is gone.
    pub fn datatype(self) -> &'static str {
        string(word(self.0 + 1))
    }

    /// 1 when required.
    pub fn min(self) -> u32 {
        word(self.0 + 2) & 0xFF
    }

    /// At most how many repetitions; nothing means without limit.
    pub fn max(self) -> Option<u32> {
        bound(word(self.0 + 2))
    }

    /// The longest value in characters, where the release gives one.
    pub fn length(self) -> Option<u32> {
        match word(self.0 + 3) {
            0 => None,
            n => Some(n),
        }
    }

    /// The code table, `0001`.
    pub fn table(self) -> Option<&'static str> {
        match word(self.0 + 4) {
            0 => None,
            id => Some(string(id)),
        }
    }

    /// Required, optional, conditional, kept for backward compatibility, or withdrawn.
    pub fn usage(self) -> Usage {
        match (word(self.0 + 2) >> 8) & 0xFF {
            1 => Usage::Conditional,
            2 => Usage::Backward,
            3 => Usage::Withdrawn,
            _ if self.min() > 0 => Usage::Required,
            _ => Usage::Optional,
        }
    }
}

fn bound(word: u32) -> Option<u32> {
    match word >> 16 {
        0xFFFF => None,
        n => Some(n),
    }
}

/// HL7 chapter 2, section 2.5.3.4: optionality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// R.
    Required,
    /// O.
    Optional,
    /// C: required under a condition that the dictionary does not hold.
    Conditional,
    /// B: kept for senders of older releases.
    Backward,
    /// W or X: accepted on input, never written.
    Withdrawn,
}

/// What a release says of a data type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatatypeDef(u32);

impl DatatypeDef {
    /// `CX`.
    pub fn id(self) -> &'static str {
        string(word(self.0))
    }

    /// `Extended Composite ID with Check Digit`.
    pub fn name(self) -> &'static str {
        string(word(self.0 + 1))
    }

    /// How many components; none for a primitive.
    pub fn component_count(self) -> usize {
        word(self.0 + 3) as usize
    }

    /// Component `n`, from 1.
    pub fn component(self, n: usize) -> Option<FieldDef> {
        part(word(self.0 + 2), word(self.0 + 3), n)
    }

    /// True when it has no components.
    pub fn is_primitive(self) -> bool {
        self.component_count() == 0
    }
}

/// A code table of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table(u32);

impl Table {
    /// `0001`.
    pub fn id(self) -> &'static str {
        string(word(self.0))
    }

    /// `Administrative Sex`.
    pub fn name(self) -> &'static str {
        string(word(self.0 + 1))
    }

    /// True when HL7 defines the codes; otherwise they are suggestions.
    pub fn is_hl7(self) -> bool {
        word(self.0 + 2) != 0
    }

    /// All codes with their displays, sorted by code.
    pub fn codes(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let (at, count) = (word(self.0 + 3), word(self.0 + 4));
        (0..count).map(move |n| (string(word(at + n * 2)), string(word(at + n * 2 + 1))))
    }

    /// Is it a code of this table, letter for letter?
    pub fn contains(self, code: &str) -> bool {
        self.display(code).is_some()
    }

    /// The display of a code of this table.
    pub fn display(self, code: &str) -> Option<&'static str> {
        find(word(self.0 + 3), word(self.0 + 4), 2, code).map(|at| string(word(at + 1)))
    }
}

/// A segment of a release.
pub fn segment(version: Version, id: &str) -> Option<SegmentDef> {
    entry(version, Section::Segments, 4, id).map(SegmentDef)
}

/// A segment as the newest release that has it defines it.
pub fn newest_segment(id: &str) -> Option<SegmentDef> {
    newest(|v| segment(v, id))
}

/// A field as the newest release defines it that has the field and a data type for it.
pub fn newest_field(segment_id: &str, n: usize) -> Option<(Version, FieldDef)> {
    newest(|v| segment(v, segment_id)?.field(n).filter(|f| !f.datatype().is_empty()).map(|f| (v, f)))
}

/// A data type of a release.
pub fn datatype(version: Version, id: &str) -> Option<DatatypeDef> {
    entry(version, Section::Datatypes, 4, id).map(DatatypeDef)
}

/// A data type as the newest release that has it defines it.
pub fn newest_datatype(id: &str) -> Option<DatatypeDef> {
    newest(|v| datatype(v, id))
}

/// A code table of a release, by its four digits.
pub fn table(version: Version, id: &str) -> Option<Table> {
    entry(version, Section::Tables, 5, id).map(Table)
}

/// A code table as the newest release that has it defines it.
pub fn newest_table(id: &str) -> Option<Table> {
    newest(|v| table(v, id))
}

/// The structure that belongs to a type and event such as `ADT^A04`. An event that the release lacks is looked up in the
/// releases before it, newest first, then in those after it. An acknowledgement that no release names has the structure `ACK`.
pub fn event_structure(version: Version, event: &str) -> Option<&'static str> {
    let named = nearest(version, |v| entry(v, Section::Events, 2, event).map(|at| string(word(at + 1))));
    named.or_else(|| (event == "ACK" || event.starts_with("ACK^")).then_some("ACK"))
}

/// The answer of this release, else of the releases before it (newest first), else of those after it (oldest first).
pub(in crate::hl7v2) fn nearest<T>(version: Version, mut f: impl FnMut(Version) -> Option<T>) -> Option<T> {
    let place = version as usize;
    let (older, newer) = Version::ALL.split_at(place + 1);
    older.iter().rev().chain(newer).find_map(|v| f(*v))
}

/// All events of a release with their structures, sorted.
pub fn events(version: Version) -> impl Iterator<Item = (&'static str, &'static str)> {
    let (at, count) = section(version, Section::Events);
    (0..count).map(move |n| (string(word(at + n * 2)), string(word(at + n * 2 + 1))))
}

/// Where a structure's nodes are, and how many; its id.
pub(in crate::hl7v2) fn structure_entry(version: Version, id: &str) -> Option<(u32, u32)> {
    entry(version, Section::Structures, 3, id).map(|at| (word(at + 1), word(at + 2)))
}

/// All structures of a release in the order of their ids, as (nodes, count).
pub(in crate::hl7v2) fn structure_entries(version: Version) -> impl Iterator<Item = (u32, u32)> {
    let (at, count) = section(version, Section::Structures);
    (0..count).map(move |n| (word(at + n * 3 + 1), word(at + n * 3 + 2)))
}

/// All segment ids of all releases, sorted: for "did you mean".
pub fn segment_ids() -> impl Iterator<Item = &'static str> {
    ids(SEGMENT_IDS)
}

/// All data type ids of all releases, sorted: for "did you mean".
pub fn datatype_ids() -> impl Iterator<Item = &'static str> {
    ids(DATATYPE_IDS)
}

fn ids(pair: u32) -> impl Iterator<Item = &'static str> {
    let (at, count) = (word(pair), word(pair + 1));
    (0..count).map(move |n| string(word(at + n)))
}
