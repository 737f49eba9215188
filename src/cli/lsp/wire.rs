//! Frames of the protocol: `Content-Length`, an empty line, JSON.
//!
//! Own code, since the crates for it read numbers in a way that does not go together with exact decimals (serde_json's `arbitrary_precision`).

use serde_json::Value;
use std::io::{self, BufRead, Read, Write};

/// No editor sends more; a larger frame ends the connection.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// The next message; `None` at the end of the input.
///
/// # Errors
/// What cannot be read, or is no frame.
pub(super) fn read(input: &mut impl BufRead) -> io::Result<Option<Value>> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if input.by_ref().take(8192).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let length = length.filter(|n| *n <= FRAME_BYTES_MAX).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// Writes one message.
///
/// # Errors
/// The editor has gone.
pub(super) fn write(output: &mut impl Write, message: &Value) -> io::Result<()> {
    let body = message.to_string();
    write!(output, "Content-Length: {}\r\n\r\n{body}", body.len())?;
    output.flush()
}
