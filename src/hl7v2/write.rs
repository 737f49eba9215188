//! Writing messages: segments, fields and parts in given delimiters, with text escaped.

use crate::hl7v2::Delimiters;
use crate::hl7v2::escape::escape;

/// Builds a message from left to right. `field`, `repetition`, `component` and `subcomponent` begin the next one;
/// `text` and `raw` add to the one that is open. Delimiters with nothing after them are left out.
pub struct Writer {
    delimiters: Delimiters,
    out: Vec<u8>,
    /// Where the open segment's last value ends.
    valued: usize,
}

impl Writer {
    /// An empty message in these delimiters.
    pub fn new(delimiters: Delimiters) -> Self {
        Self { delimiters, out: Vec::with_capacity(256), valued: 0 }
    }

    /// Begins MSH (or FHS, BHS) with its first two fields, which hold the delimiters.
    pub fn header(&mut self, name: &str) -> &mut Self {
        self.segment(name);
        self.out.push(self.delimiters.field);
        self.out.extend(self.delimiters.encoding_characters());
        self.valued = self.out.len();
        self
    }

    /// Begins a segment and ends the one before it.
    pub fn segment(&mut self, name: &str) -> &mut Self {
        self.end_segment();
        self.out.extend_from_slice(name.as_bytes());
        self.valued = self.out.len();
        self
    }

    /// Begins the next field.
    pub fn field(&mut self) -> &mut Self {
        self.delimiter(3, Some(self.delimiters.field))
    }

    /// Leaves fields empty.
    pub fn skip_fields(&mut self, count: usize) -> &mut Self {
        (0..count).for_each(|_| self.push_delimiter(3, Some(self.delimiters.field)));
        self
    }

    /// Begins the next repetition.
    pub fn repetition(&mut self) -> &mut Self {
        self.delimiter(2, self.delimiters.repetition)
    }

    /// Begins the next component.
    pub fn component(&mut self) -> &mut Self {
        self.delimiter(1, Some(self.delimiters.component))
    }

    /// Begins the next subcomponent.
    pub fn subcomponent(&mut self) -> &mut Self {
        self.delimiter(0, self.delimiters.subcomponent)
    }

    /// Adds text; what would be read as a delimiter or would break the frame is escaped.
    pub fn text(&mut self, text: &str) -> &mut Self {
        escape(text, &self.delimiters, &mut self.out);
        self.add_value(text.is_empty())
    }

    /// Adds a number, or nothing for 0.
    pub fn number(&mut self, number: u32) -> &mut Self {
        if number == 0 { self } else { self.text(&number.to_string()) }
    }

    /// Adds bytes that are already escaped in these delimiters.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self.add_value(bytes.is_empty())
    }

    /// The message, each segment ended by CR.
    pub fn finish(mut self) -> Vec<u8> {
        self.end_segment();
        self.out
    }

    fn add_value(&mut self, nothing: bool) -> &mut Self {
        if !nothing {
            self.valued = self.out.len();
        }
        self
    }

    fn delimiter(&mut self, rank: usize, delimiter: Option<u8>) -> &mut Self {
        self.push_delimiter(rank, delimiter);
        self
    }

    /// Ends what is open at lower ranks: their delimiters without a value after them are taken back. A delimiter that the
    /// message does not have is written as a blank, as nothing else can part two values.
    fn push_delimiter(&mut self, rank: usize, delimiter: Option<u8>) {
        let d = self.delimiters;
        let lower = [d.subcomponent, Some(d.component), d.repetition];
        let lower = lower.get(..rank).unwrap_or_default();
        while self.out.len() > self.valued && lower.contains(&self.out.last().copied()) {
            self.out.pop();
        }
        self.out.push(delimiter.unwrap_or(b' '));
    }

    fn end_segment(&mut self) {
        if !self.out.is_empty() {
            self.out.truncate(self.valued);
            self.out.push(b'\r');
            self.valued = self.out.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Writer;
    use crate::hl7v2::Delimiters;

    #[test]
    fn delimiters_after_the_last_value_are_left_out_and_raw_bytes_are_kept() {
        let mut w = Writer::new(Delimiters::STANDARD);
        w.header("MSH").skip_fields(2).field().text("A|B").field();
        w.segment("PID").field().field().repetition().component();
        w.segment("MSA").field().text("AA").field().raw(b"x^^").field();
        w.segment("OBX")
            .field()
            .component()
            .subcomponent()
            .text("\"\"")
            .repetition()
            .number(0)
            .component()
            .number(7)
            .component()
            .subcomponent()
            .field()
            .text("x");
        assert_eq!(String::from_utf8_lossy(&w.finish()), "MSH|^~\\&|||A\\F\\B\rPID\rMSA|AA|x^^\rOBX|^&\"\"~^7|x\r");
    }
}
