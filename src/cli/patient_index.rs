//! The words that `kiln journal search --patient` finds a message by: every patient identifier in it.

use crate::hl7v2::{Charset, Message, ParseOptions};
use crate::journal::Indexer;
use crate::site::Site;
use std::collections::HashMap;
use std::sync::Arc;

/// Where patient identifiers stand: PID-2, -3, -4 and -18, and those that a merge gives up, MRG-1, -2, -3 and -4.
const FIELDS: [(&str, &[usize]); 2] = [("PID", &[3, 2, 4, 18]), ("MRG", &[1, 2, 3, 4])];

/// What each listener says about the character set of its messages.
pub(crate) fn charsets(site: &Site) -> HashMap<Arc<str>, Charset> {
    let of = |charset: &Option<String>| charset.as_deref().and_then(Charset::named);
    site.listeners.iter().filter_map(|listener| Some((Arc::clone(&listener.socket.name), of(&listener.charset)?))).collect()
}

/// Gives the first component of each; a message that cannot be read has none. `charsets` are the listeners'.
pub(crate) fn indexer(charsets: HashMap<Arc<str>, Charset>) -> Indexer {
    Arc::new(move |envelope| {
        let options = ParseOptions { charset: charsets.get(&envelope.listener).copied() };
        let Ok(message) = Message::parse(envelope.bytes.expose().clone(), &options) else { return Vec::new() };
        let mut words = Vec::new();
        for (name, fields) in FIELDS {
            for segment in message.segments_named(name) {
                for field in fields {
                    for repetition in message.repetitions(message.field(segment, *field)) {
                        let word = message.text(message.component(repetition, 1)).trim().to_owned();
                        if !word.is_empty() && !words.contains(&word) {
                            words.push(word);
                        }
                    }
                }
            }
        }
        words
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{ControlId, Envelope, Format, Phi, Timestamp};
    use bytes::Bytes;

    #[test]
    fn all_identifiers_of_a_merge_are_found() {
        let text = "MSH|^~\\&|A|B|C|D|2026||ADT^A40|1|P|2.5\rPID|1|old2|4711^^^H^MR~99^^^N^SS||Doe\rMRG|4712^^^H^MR\r";
        let envelope = envelope(text.into());
        assert_eq!(indexer(HashMap::new())(&envelope), ["4711", "99", "old2", "4712"]);
    }

    #[test]
    fn a_message_is_read_in_its_listeners_character_set() {
        let text = b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|1|P|2.5\rPID|1||\xC4-7^^^H^MR\r";
        let envelope = envelope(Bytes::from_static(text));
        let latin = HashMap::from([("adt".into(), Charset::named("8859/1").expect("it is known"))]);
        assert_eq!(indexer(latin)(&envelope), ["\u{c4}-7"]);
    }

    fn envelope(bytes: Bytes) -> Envelope {
        Envelope {
            listener: "adt".into(),
            peer: String::new(),
            received: Timestamp(0),
            format: Format::V2,
            message_type: String::new(),
            sending_application: String::new(),
            sending_facility: String::new(),
            message_time: String::new(),
            control_id: ControlId::default(),
            order_keys: Vec::new(),
            bytes: Phi::new(bytes),
        }
    }
}
