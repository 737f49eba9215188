//! A message that its transport wrote in another character set than the message says: HTTP's `charset` stands above MSH-18 (HL7 over HTTP,
//! section 1.2). What is kept is in the set that the message says, so that whoever reads it later needs nothing but the message.

use crate::hl7v2::charset::{Named, declared};
use crate::hl7v2::{Charset, Fault, Header, Location, ParseOptions};
use bytes::Bytes;

/// The set in which the message will be read: the listener's, else that of MSH-18, else what the listener takes for granted, else UTF-8.
fn own(text: &[u8], options: &ParseOptions) -> Charset {
    if let Some(charset) = options.charset {
        return charset;
    }
    let Ok(header) = Header::read(text) else { return Charset::UTF_8 };
    let field = header.text(18).into_owned();
    let repetitions: Vec<&str> = match header.delimiters().repetition {
        Some(repetition) => field.split(char::from(repetition)).collect(),
        None => vec![&field],
    };
    // An empty first repetition means ASCII where others follow; an empty field means nothing.
    let named = if field.trim().is_empty() { Named::Unknown } else { declared(repetitions.into_iter(), text.contains(&0x1B)) };
    match named {
        Named::Readable(charset) => charset,
        Named::Refused(_) => Charset::UTF_8,
        Named::Unknown => options.charset_otherwise.unwrap_or(Charset::UTF_8),
    }
}

/// The message in the set in which it will be read, and that set. `written` is what the transport says.
///
/// # Errors
/// A fault at MSH-18 if a byte cannot be decoded, or a character cannot be written in the message's own set.
pub fn recode(frame: &Bytes, written: Charset, options: &ParseOptions) -> Result<(Bytes, Charset), Fault> {
    let fault = |text: String| Fault::new(Location::field("MSH", 18), Fault::DATA_TYPE, text);
    let text = written.to_utf8(frame).map_err(|at| fault(format!("byte {at} is no {}, the character set that the request names", written.name())))?;
    let own = own(text.as_bytes(), options);
    if own == written {
        return Ok((frame.clone(), own));
    }
    let mut bytes = Vec::with_capacity(text.len());
    if !own.encode(&text, &mut bytes) {
        return Err(fault(format!(
            "the message says that it is {}, which lacks a character that it holds: say UNICODE UTF-8 in MSH-18, or leave it empty",
            own.name()
        )));
    }
    Ok((bytes.into(), own))
}

/// An answer in the set that the transport wants; as it is, where that set lacks a character.
pub fn recode_answer(answer: &Bytes, own: Charset, wanted: Charset) -> Bytes {
    if own == wanted {
        return answer.clone();
    }
    let Ok(text) = own.to_utf8(answer) else { return answer.clone() };
    let mut bytes = Vec::with_capacity(text.len());
    if wanted.encode(&text, &mut bytes) { bytes.into() } else { answer.clone() }
}
