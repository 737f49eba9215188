//! Files of messages: plain, MLLP-wrapped, batches, any line ends, standard input.

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

/// How a message is named to the user: the file, and its place where it is not the first.
pub(crate) fn name(path: &Path, number: usize) -> String {
    if number == 0 { path.display().to_string() } else { format!("{}#{}", path.display(), number + 1) }
}

/// MSH-10 as sent.
pub(crate) fn control_id(message: &[u8]) -> String {
    let separator = message.get(3).copied().unwrap_or(b'|');
    let header = message.split(|b| *b == b'\r' || *b == b'\n').next().unwrap_or(&[]);
    String::from_utf8_lossy(header.split(|b| *b == separator).nth(9).unwrap_or(&[])).into_owned()
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for line in bytes.split(|b| matches!(b, b'\r' | b'\n' | 0x0b | 0x1c)).filter(|l| !l.is_empty()) {
        if line.starts_with(b"MSH") {
            messages.push(Vec::new());
        } else if [b"FHS", b"BHS", b"BTS", b"FTS"].iter().any(|h| line.starts_with(*h)) {
            continue;
        }
        if let Some(message) = messages.last_mut() {
            message.extend_from_slice(line);
            message.push(b'\r');
        }
    }
    messages
}
