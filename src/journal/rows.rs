//! How the words of `exchange` look in rows, and back.

use crate::exchange::{ControlId, Envelope, Format, OrderKey, Phi, Timestamp};
use crate::journal::Disposition;
use crate::journal::schema::CODEC_RAW;
use bytes::Bytes;
use rusqlite::{Connection, MAIN_DB, Row};
use std::sync::Arc;

/// A payload of more bytes is read and written piece by piece: SQLite would hold it twice beside what the caller has. [`ENVELOPE`] has the number, too.
pub(in crate::journal) const LARGE_BYTES: usize = 1_048_576;

/// The columns that [`envelope`] reads, from `message AS m JOIN name AS l ON l.id = m.listener`.
pub(in crate::journal) const ENVELOPE: &str = "m.received, l.text, m.format, m.type, m.application, m.facility, m.message_time, m.control_id, m.peer, \
     m.order_keys, CASE WHEN length(m.payload) <= 1048576 THEN m.payload END, m.disposition, m.code, m.reason, m.id";

/// A message as it was received; `None` if its payload is packed in a way that this program does not know.
pub(in crate::journal) fn envelope(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<Envelope>> {
    with_payload(row, |message| large_payload(connection, message))
}

/// The same for search: of a long message without its documents, so that it never stands in memory as a whole.
pub(in crate::journal) fn searched(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<Envelope>> {
    with_payload(row, |message| without_documents(connection, message))
}

fn with_payload(row: &Row<'_>, large: impl FnOnce(i64) -> rusqlite::Result<Option<Bytes>>) -> rusqlite::Result<Option<Envelope>> {
    let payload = match row.get_ref(10)?.as_blob_or_null()? {
        Some(payload) => payload.split_first().filter(|(codec, _)| **codec == CODEC_RAW).map(|(_, bytes)| Bytes::copy_from_slice(bytes)),
        None => large(row.get(14)?)?,
    };
    let Some(bytes) = payload else { return Ok(None) };
    Ok(Some(Envelope {
        received: Timestamp(row.get(0)?),
        listener: row.get(1)?,
        format: format(row.get(2)?),
        message_type: row.get(3)?,
        sending_application: row.get(4)?,
        sending_facility: row.get(5)?,
        message_time: row.get(6)?,
        control_id: ControlId(row.get(7)?),
        peer: row.get(8)?,
        order_keys: keys(row.get_ref(9)?.as_blob()?),
        bytes: Phi::new(bytes),
    }))
}

/// The payload of a long message, without a second copy of it in SQLite's memory.
fn large_payload(connection: &Connection, message: i64) -> rusqlite::Result<Option<Bytes>> {
    let blob = connection.blob_open(MAIN_DB, "message", "payload", message, true)?;
    let mut codec = [0];
    blob.read_at_exact(&mut codec, 0)?;
    let mut bytes = vec![0; blob.len().saturating_sub(1)];
    blob.read_at_exact(&mut bytes, 1)?;
    Ok((codec == [CODEC_RAW]).then(|| bytes.into()))
}

/// A field of more bytes is a document: nobody searches by it.
const FIELD_BYTES_MAX: usize = 32 * 1024;

/// The payload of a long message, its documents read as empty fields.
fn without_documents(connection: &Connection, message: i64) -> rusqlite::Result<Option<Bytes>> {
    let blob = connection.blob_open(MAIN_DB, "message", "payload", message, true)?;
    let (mut kept, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    let (mut field, mut separator) = (0, b'|');
    let mut at = 0;
    while at < blob.len() {
        let length = piece.len().min(blob.len() - at);
        let Some(read) = piece.get_mut(..length) else { break };
        blob.read_at_exact(read, at)?;
        let mut bytes: &[u8] = read;
        if at == 0 {
            let Some((&CODEC_RAW, rest)) = bytes.split_first() else { return Ok(None) };
            bytes = rest;
            // MSH-1 is the byte behind the name (HL7 chapter 2, section 2.5.4).
            separator = memchr::memmem::find(bytes, b"MSH").and_then(|name| bytes.get(name + 3)).copied().unwrap_or(separator);
        }
        for byte in bytes {
            if *byte == separator || matches!(byte, b'\r' | b'\n') {
                field = kept.len() + 1;
            } else if kept.len() == field + FIELD_BYTES_MAX {
                kept.truncate(field);
                field = usize::MAX - FIELD_BYTES_MAX;
            }
            if field <= kept.len() + 1 {
                kept.push(*byte);
            }
        }
        at += length;
    }
    Ok(Some(kept.into()))
}

/// Fills the payload of a message that was inserted with room for it.
pub(in crate::journal) fn write_large_payload(connection: &Connection, message: i64, bytes: &[u8]) -> rusqlite::Result<()> {
    let mut blob = connection.blob_open(MAIN_DB, "message", "payload", message, false)?;
    blob.write_all_at(&[CODEC_RAW], 0)?;
    blob.write_all_at(bytes, 1)
}

/// A payload's bytes; `None` if they are packed in a way that this program does not know.
pub(in crate::journal) fn unpacked(payload: &[u8]) -> Option<Bytes> {
    let (&CODEC_RAW, bytes) = payload.split_first()? else { return None };
    Some(Bytes::copy_from_slice(bytes))
}

/// The number that is stored for a format.
pub(in crate::journal) fn format_number(format: Format) -> i64 {
    match format {
        Format::V2 => 0,
        Format::V3 => 1,
        Format::Fhir => 2,
    }
}

fn format(number: i64) -> Format {
    match number {
        1 => Format::V3,
        2 => Format::Fhir,
        _ => Format::V2,
    }
}

/// What is stored for a disposition: its number, code and reason.
pub(in crate::journal) fn disposition_columns(disposition: &Disposition) -> (i64, Option<u16>, Option<&str>) {
    match disposition {
        Disposition::Accepted => (0, None, None),
        Disposition::Filtered => (1, None, None),
        Disposition::Unrouted => (2, None, None),
        Disposition::Refused { code, text } => (3, Some(*code), Some(text)),
    }
}

/// A disposition from its columns.
pub(in crate::journal) fn disposition(number: i64, code: Option<u16>, text: Option<String>) -> Disposition {
    match number {
        0 => Disposition::Accepted,
        1 => Disposition::Filtered,
        2 => Disposition::Unrouted,
        _ => Disposition::Refused { code: code.unwrap_or_default(), text: text.unwrap_or_default() },
    }
}

/// The word for a stored disposition.
pub(in crate::journal) fn disposition_word(number: i64) -> &'static str {
    match number {
        0 => "accepted",
        1 => "filtered",
        2 => "unrouted",
        _ => "refused",
    }
}

/// Order keys as a blob, eight bytes each.
pub(in crate::journal) fn key_bytes(keys: &[OrderKey]) -> Vec<u8> {
    keys.iter().flat_map(|key| key.0.to_le_bytes()).collect()
}

/// Order keys from their blob.
pub(in crate::journal) fn keys(bytes: &[u8]) -> Vec<OrderKey> {
    bytes.chunks_exact(8).map(|chunk| OrderKey(u64::from_le_bytes(chunk.try_into().unwrap_or_default()))).collect()
}

/// An order key as SQLite's signed integer.
pub(in crate::journal) fn key_number(key: OrderKey) -> i64 {
    key.0.cast_signed()
}

/// What an attempt's row may say.
pub(in crate::journal) mod outcome {
    pub(in crate::journal) const BEGUN: i64 = 0;
    pub(in crate::journal) const DELIVERED: i64 = 1;
    pub(in crate::journal) const RETRY: i64 = 2;
    pub(in crate::journal) const DEAD_LETTER: i64 = 3;
    pub(in crate::journal) const PARKED: i64 = 4;
    pub(in crate::journal) const RESUMED: i64 = 5;
    pub(in crate::journal) const SKIPPED: i64 = 6;
    pub(in crate::journal) const SUPERSEDED: i64 = 7;
    pub(in crate::journal) const REPLAYED: i64 = 8;
    pub(in crate::journal) const REFUSED: i64 = 9;
    pub(in crate::journal) const WITHDRAWN: i64 = 10;
    const WORDS: [&str; 11] = ["begun", "delivered", "retry", "dead-letter", "parked", "resumed", "skipped", "superseded", "replayed", "refused", "withdrawn"];

    /// The word for a stored outcome.
    pub(in crate::journal) fn word(number: i64) -> &'static str {
        usize::try_from(number).ok().and_then(|place| WORDS.get(place)).copied().unwrap_or("unknown")
    }
}

/// Shares equal names among many rows.
#[derive(Default)]
pub(in crate::journal) struct Names {
    known: Vec<Arc<str>>,
}

impl Names {
    /// The one shared copy of a name. There are few: a scan beats hashing.
    pub(in crate::journal) fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.iter().find(|known| known.as_ref() == name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.known.push(name.clone());
        name
    }
}
