//! A connection to a listener that is kept, and what enhanced mode says on it.

use super::moody::record;
use super::{PATIENCE, admit, run, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

/// One connection to a listener.
pub struct Session {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Session {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    pub fn send(&mut self, message: &str) {
        self.stream.write_all(&[&[0x0b], message.as_bytes(), &[0x1c, 0x0d]].concat()).expect("it is open");
    }

    /// The next frame; `None` once the other side has closed.
    #[track_caller]
    pub fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == [0x1c, 0x0d]) {
                let frame: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&frame[1..end]).into_owned());
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(0) => return None,
                Ok(n) => self.read.extend_from_slice(&some[..n]),
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => panic!("nothing came: {e}"),
                Err(_) => return None,
            }
        }
    }

    #[track_caller]
    pub fn expect(&mut self) -> String {
        self.next().expect("a frame")
    }

    /// The codes of all frames that come before the answer to a last message in original mode, which asks for it.
    #[track_caller]
    pub fn codes_until(&mut self, id: &str) -> Vec<String> {
        self.send(&admit(id, id).replace("ADT^A01^ADT_A01", "ZZZ^Z09"));
        let mut codes = Vec::new();
        loop {
            let (code, answered) = msa(&self.expect());
            if answered == id {
                return codes;
            }
            codes.push(code);
        }
    }
}

/// MSA-1 and MSA-2.
#[track_caller]
pub fn msa(ack: &str) -> (String, String) {
    let fields: Vec<_> = ack.split('\r').find(|s| s.starts_with("MSA|")).unwrap_or_else(|| panic!("no MSA: {ack:?}")).split('|').collect();
    (fields[1].to_owned(), fields.get(2).copied().unwrap_or_default().to_owned())
}

/// A message with MSH-15 and MSH-16.
pub fn asking(message: &str, accept: &str, application: &str) -> String {
    message.replacen("|2.5.1\r", &format!("|2.5.1|||{accept}|{application}\r"), 1)
}

pub fn listener(more: &str) -> String {
    format!("adt: {{ mllp: 127.0.0.1:0{more} }}")
}

pub fn text(listeners: &[String], target: &str) -> String {
    format!("listeners: {{ {} }}\ntargets: {{ main: {{ {target} }} }}\n", listeners.join(", "))
}

/// How far the application acknowledgement of a message has come.
pub fn state(folder: &Path, id: &str) -> String {
    record(folder, id)["acknowledgements"]["state"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
pub fn wait_for_state(folder: &Path, id: &str, wanted: &str) {
    wait_for(&format!("{id} to be {wanted}"), || run(folder, &["journal", "search", "--control-id", id]).code == 0 && state(folder, id) == wanted);
}
