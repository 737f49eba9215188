//! The words that `kiln journal search --patient` finds a message by: every patient identifier in it.

use crate::hl7v2::{Message, ParseOptions};
use crate::journal::Indexer;
use crate::site::Site;
use std::collections::HashMap;
use std::sync::Arc;

/// Where patient identifiers stand: PID-2, -3, -4 and -18, and those that a merge gives up, MRG-1, -2, -3 and -4.
const FIELDS: [(&str, &[usize]); 2] = [("PID", &[3, 2, 4, 18]), ("MRG", &[1, 2, 3, 4])];

/// How the messages of each listener are read.
pub(crate) fn manners(site: &Site) -> HashMap<Arc<str>, ParseOptions> {
    site.listeners.iter().map(|listener| (Arc::clone(&listener.socket.name), listener.parse_options())).collect()
}

/// Gives the first component of each; a message that cannot be read has none. `manners` are the listeners'.
pub(crate) fn indexer(manners: HashMap<Arc<str>, ParseOptions>) -> Indexer {
    Arc::new(move |envelope| {
        let options = manners.get(&envelope.listener).copied().unwrap_or_default();
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
        let latin = HashMap::from([("adt".into(), ParseOptions { charset_otherwise: crate::hl7v2::Charset::named("8859/1"), ..ParseOptions::default() })]);
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
