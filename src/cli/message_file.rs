//! Files of messages: plain, MLLP-wrapped, batches, any line ends, standard input.

use crate::hl7v2::{self, Header};
use std::io::{self, Read};
use std::path::Path;

/// A file larger than this is an archive, and for `kiln import`.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The messages of a file; `-` is standard input.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(split(&bytes))
}

/// The messages among bytes, each with segments that end in CR as HL7 wants them (chapter 2, section 2.5.2).
pub(crate) fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    hl7v2::split(bytes).into_iter().filter_map(|range| bytes.get(range)).map(with_carriage_returns).collect()
}

fn with_carriage_returns(message: &[u8]) -> Vec<u8> {
    let mut fixed = Vec::with_capacity(message.len() + 1);
    let mut rest = message;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\r' => {
                fixed.push(b'\r');
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            b'\n' => fixed.push(b'\r'),
            other => fixed.push(*other),
        }
    }
    if fixed.last().is_some_and(|b| *b != b'\r') {
        fixed.push(b'\r');
    }
    fixed
}

/// How a message is named to the user: the file, and its place where it is not the first.
pub(crate) fn name(path: &Path, number: usize) -> String {
    if number == 0 { path.display().to_string() } else { format!("{}#{}", path.display(), number + 1) }
}

/// MSH-10 as sent; empty where there is no MSH.
pub(crate) fn control_id(message: &[u8]) -> String {
    Header::read(message).map(|h| h.text(10).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_carriage_returns() {
        let batch = b"BHS|^~\\&\nMSH|^~\\&|A|||||ADT^A01||1\r\nPID|1\n\nMSH|^~\\&|A||||||| \xe4\rPID|2\r\nBTS|2\n";
        let messages = split(batch);
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0], b"MSH|^~\\&|A|||||ADT^A01||1\rPID|1\r");
        assert_eq!(messages[1], b"MSH|^~\\&|A||||||| \xe4\rPID|2\r");
        assert_eq!(control_id(b"MSH|^~\\&|A||||||ADT|77|P\rPID"), "77");
        assert_eq!(control_id(b"PID|1"), "");
    }
}
