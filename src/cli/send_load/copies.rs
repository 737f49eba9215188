//! Copies of a message that differ as messages of a feed do: a control ID and time of its own, patients, visits and orders.

/// How many different patients the copies name.
pub(super) const PATIENTS: u64 = 10_000;
/// Letters of a generated control ID; MSH-10 holds 20 in all versions before 2.7.
pub(super) const CONTROL_ID_LEN: usize = 16;

/// Width of a generated identifier.
const IDENTIFIER_LEN: usize = 8;

/// What an identifier names: it is the same in all copies of one patient, or another in each copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Patient,
    Visit,
    Copy,
}

/// Fields with identifiers, by segment: patients and visits, and what each copy makes anew (orders, appointments).
const IDENTIFIERS: [(&[u8], &[(usize, Names)]); 6] = [
    (b"PID", &[(2, Names::Patient), (3, Names::Patient), (4, Names::Patient), (18, Names::Visit)]),
    (b"MRG", &[(1, Names::Patient), (2, Names::Patient), (3, Names::Visit), (4, Names::Patient), (5, Names::Visit), (6, Names::Visit)]),
    (b"PV1", &[(19, Names::Visit)]),
    (b"ORC", &[(2, Names::Copy), (3, Names::Copy)]),
    (b"OBR", &[(2, Names::Copy), (3, Names::Copy)]),
    (b"SCH", &[(1, Names::Copy), (2, Names::Copy)]),
];

/// An identifier of the message: where it stands, and its first letter, by which different ones of one message stay different.
struct Slot {
    names: Names,
    letter: u8,
    place: std::ops::Range<usize>,
}

/// A message cut at the places that differ between copies.
pub(crate) struct Template {
    pub(super) frame: Vec<u8>,
    pub(super) control_id: Option<std::ops::Range<usize>>,
    time: Option<std::ops::Range<usize>>,
    identifiers: Vec<Slot>,
    /// Different identifiers seen so far.
    known: Vec<(Names, Vec<u8>)>,
}

impl Template {
    /// Makes room for MSH-7, MSH-10 and identifiers, all of fixed widths, and wraps the rest in a frame. What a message doesn't have it goes without.
    pub(crate) fn new(message: &[u8]) -> Self {
        Self::cut(message, true)
    }

    fn cut(message: &[u8], identifiers: bool) -> Self {
        let mut this = Self { frame: vec![0x0b], control_id: None, time: None, identifiers: Vec::new(), known: Vec::new() };
        let separator = message.get(3).copied().unwrap_or(b'|');
        for segment in message.split(|b| *b == b'\r' || *b == b'\n').filter(|s| !s.is_empty()) {
            let name = segment.get(..3).unwrap_or(segment);
            for (n, field) in segment.split(|b| *b == separator).enumerate() {
                if n > 0 {
                    this.frame.push(separator);
                }
                match (name, n) {
                    (b"MSH", 6) => this.time = Some(this.slot(14)),
                    (b"MSH", 9) => this.control_id = Some(this.slot(CONTROL_ID_LEN)),
                    _ => match IDENTIFIERS.iter().find(|(segment, _)| *segment == name).and_then(|(_, f)| f.iter().find(|(at, _)| *at == n)) {
                        Some((_, names)) if identifiers => this.identifiers_of(field, *names, message),
                        _ => this.frame.extend_from_slice(field),
                    },
                }
            }
            this.frame.push(b'\r');
        }
        this.frame.extend_from_slice(&[0x1c, 0x0d]);
        this
    }

    /// A field of identifiers: the value of each repetition becomes a slot, its authority and type stay.
    fn identifiers_of(&mut self, field: &[u8], names: Names, message: &[u8]) {
        let delimiter = |at: usize, usual: u8| message.get(at).copied().unwrap_or(usual);
        let (component, repetition, subcomponent) = (delimiter(4, b'^'), delimiter(5, b'~'), delimiter(7, b'&'));
        for (n, each) in field.split(|b| *b == repetition).enumerate() {
            if n > 0 {
                self.frame.push(repetition);
            }
            let end = each.iter().position(|b| *b == component || *b == subcomponent).unwrap_or(each.len());
            let (value, rest) = each.split_at(end);
            // Neither nothing nor the null of HL7 names anybody.
            if value.is_empty() || value == b"\"\"" {
                self.frame.extend_from_slice(each);
                continue;
            }
            let known = self.known.iter().filter(|(of, _)| *of == names).position(|(_, known)| known == value);
            let number = known.unwrap_or_else(|| {
                self.known.push((names, value.to_vec()));
                self.known.iter().filter(|(of, _)| *of == names).count() - 1
            });
            let first = match names {
                Names::Patient => b'P',
                Names::Visit => b'V',
                Names::Copy => b'C',
            };
            let letter = b'A' + (first - b'A' + u8::try_from(number % 26).unwrap_or(0)) % 26;
            let place = self.slot(IDENTIFIER_LEN);
            self.identifiers.push(Slot { names, letter, place });
            self.frame.extend_from_slice(rest);
        }
    }

    fn slot(&mut self, width: usize) -> std::ops::Range<usize> {
        let start = self.frame.len();
        self.frame.resize(start + width, b'0');
        start..start + width
    }

    /// One copy, framed, in place. Returns nothing: [`Template::frame`] is it.
    pub(super) fn render(&mut self, control_id: u64, patient: u64, time: &[u8]) {
        if let Some(slot) = self.control_id.clone().and_then(|r| self.frame.get_mut(r)) {
            write_hex(control_id, slot);
        }
        for Slot { names, letter, place } in &self.identifiers {
            let Some(slot) = self.frame.get_mut(place.clone()) else { continue };
            match names {
                Names::Patient | Names::Visit => write_decimal(patient, slot),
                Names::Copy => write_hex(control_id, slot),
            }
            if let Some(first) = slot.first_mut() {
                *first = *letter;
            }
        }
        if let Some(slot) = self.time.clone().and_then(|r| self.frame.get_mut(r))
            && slot.len() == time.len()
        {
            slot.copy_from_slice(time);
        }
    }

    /// The message without a frame, with a control ID and time of its own; patients and all else stay as they are.
    pub(crate) fn fresh(message: &[u8]) -> Vec<u8> {
        let mut this = Self::cut(message, false);
        this.render(Random::new().next(), 0, &now_as_dtm());
        let len = this.frame.len();
        this.frame.get(1..len.saturating_sub(2)).unwrap_or(&[]).to_vec()
    }
}

pub(super) fn write_hex(mut n: u64, slot: &mut [u8]) {
    for b in slot.iter_mut().rev() {
        *b = *b"0123456789ABCDEF".get((n & 15) as usize).unwrap_or(&b'0');
        n >>= 4;
    }
}

fn write_decimal(mut n: u64, slot: &mut [u8]) {
    for b in slot.iter_mut().rev() {
        *b = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
    }
}

pub(super) fn now_as_dtm() -> Vec<u8> {
    jiff::Timestamp::now().strftime("%Y%m%d%H%M%S").to_string().into_bytes()
}

/// xorshift64*, seeded by the system: fast, and good enough to make control IDs that differ.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        Self(getrandom::u64().unwrap_or(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_has_a_control_id_a_time_and_a_patient_of_its_own() {
        let mut template = Template::new(b"MSH|^~\\&|A|B|C|D|20200101||ADT^A01|X|P|2.5\rEVN|A01\rPID|1||77^^^H^MR~8||Doe\r");
        template.render(0xABC, 42, b"20260101000000");
        let text = String::from_utf8_lossy(&template.frame).into_owned();
        assert_eq!(text, "\u{b}MSH|^~\\&|A|B|C|D|20260101000000||ADT^A01|0000000000000ABC|P|2.5\rEVN|A01\rPID|1||P0000042^^^H^MR~Q0000042||Doe\r\u{1c}\r");
        let fresh = Template::fresh(b"MSH|^~\\&|A|B|C|D|20200101||ADT^A01|X|P|2.5\nPID|1||77");
        assert!(fresh.ends_with(b"|P|2.5\rPID|1||77\r") && fresh.starts_with(b"MSH|") && !fresh.windows(3).any(|w| w == b"|X|"));
        assert_eq!(Template::new(b"").frame, [0x0b, 0x1c, 0x0d]);
    }

    #[test]
    fn visits_follow_the_patient_orders_and_appointments_the_copy_and_equal_ones_stay_equal() {
        let mut template =
            Template::new(b"MSH|^~\\&|A\rPID|||\"\"~~7|7||||||||||||||9^^^H\rPV1|1||||||||||||||||||9\rORC|NW|O1^X|O2\rOBR|1|O1^X|O2&Y\rSCH|S1\r");
        template.render(0xABC, 42, b"");
        let text = String::from_utf8_lossy(&template.frame).into_owned();
        let expected = "MSH|^~\\&|A\rPID|||\"\"~~P0000042|P0000042||||||||||||||V0000042^^^H\rPV1|1||||||||||||||||||V0000042\r\
            ORC|NW|C0000ABC^X|D0000ABC\rOBR|1|C0000ABC^X|D0000ABC&Y\rSCH|E0000ABC\r";
        assert_eq!(text.trim_matches(['\u{b}', '\u{1c}']).trim_end_matches("\u{1c}\r"), expected);
    }
}
