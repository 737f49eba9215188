//! A sender of HL7 v2 as every interface engine has one, and what a receiver must have seen of it in the end.

use super::{adt, control_id};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A sender as MLLP has it: one message at a time, sent again with the same bytes until it is acknowledged.
pub fn send_until_acknowledged(address: SocketAddr, message: &str, connection: &mut Option<TcpStream>) {
    let id = control_id(message);
    let give_up = Instant::now() + Duration::from_secs(120);
    while Instant::now() < give_up {
        let stream = match connection.take() {
            Some(stream) => Some(stream),
            None => TcpStream::connect(address).ok(),
        };
        let Some(mut stream) = stream else {
            // As senders do: a moment between one try to connect and the next.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        if stream.write_all(&[b"\x0B", message.as_bytes(), b"\x1C\r"].concat()).is_err() {
            continue;
        }
        let mut gathered = Vec::new();
        let mut buffer = [0; 4096];
        // Everything up to its own acknowledgement; others are not its own.
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            gathered.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&gathered).into_owned();
            if text.contains(&format!("MSA|AA|{id}\r")) && gathered.ends_with(b"\x1C\r") {
                *connection = Some(stream);
                return;
            }
        }
    }
    panic!("{id} was never acknowledged");
}

/// What a receiver was given against what was sent, by patient: all of it, in order, and again only at once.
#[track_caller]
pub fn holds(name: &str, received: &[String], patients: usize, count: usize) {
    for patient in 0..patients {
        let mine = |id: &&String| id.split('-').next() == Some(&format!("P{patient}"));
        let mut ids: Vec<String> = received.iter().filter(mine).cloned().collect();
        ids.dedup();
        let wanted: Vec<String> = (0..count).map(|n| format!("P{patient}-{n:03}")).collect();
        assert_eq!(ids, wanted, "{name}, patient {patient}: lost, out of order, or sent again later");
    }
}

/// Patients on connections of their own, each with its messages in order, through Kiln to the receiver.
pub fn through(daemon_address: SocketAddr, patients: usize, count: usize) {
    std::thread::scope(|scope| {
        for patient in 0..patients {
            scope.spawn(move || {
                let mut connection = None;
                for n in 0..count {
                    send_until_acknowledged(daemon_address, &adt(&format!("P{patient}-{n:03}"), &format!("P{patient}"), ""), &mut connection);
                }
            });
        }
    });
}
