//! How fast messages go on to a receiver of HL7 v2.

use crate::harness::{Asked, Daemon, load};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A receiver that answers AA at once, a thread a connection; gives its port.
fn receiver() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut gathered, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    gathered.extend_from_slice(&buffer[..n]);
                    while let Some(end) = gathered.windows(2).position(|w| w == [0x1C, 0x0D]) {
                        let frame: Vec<u8> = gathered.drain(..end + 2).collect();
                        let id = frame.split(|b| *b == b'|').nth(9).unwrap_or_default();
                        let ack = [b"\x0BMSH|^~\\&|R|R|S|S|2026||ACK|1|P|2.5\rMSA|AA|", id, b"\r\x1C\r"].concat();
                        if stream.write_all(&ack).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

/// The message as one of a type that no shipped route takes: what is measured is the forwarding alone.
fn of_no_route(message: &Path, folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(message).unwrap();
    let (header, rest) = text.split_once(['\r', '\n']).unwrap();
    let mut fields: Vec<&str> = header.split('|').collect();
    fields[8] = "ZZZ^Z01";
    let path = folder.join("message.hl7");
    std::fs::write(&path, format!("{}\r{rest}", fields.join("|"))).unwrap();
    path
}

/// How fast what waits goes to a receiver that answers at once, over one connection and over several.
pub(super) fn forward(asked: &Asked) {
    let messages = asked.number("--messages", 20_000);
    for parallel in asked.text("--parallel", "1,8,64").split(',') {
        let folder = asked.folder();
        std::fs::create_dir_all(folder.join("routes")).unwrap();
        std::fs::write(folder.join("routes/on.yaml"), "route: on\non: ZZZ^Z01\nto: ward\nmessage: as-received\n").unwrap();
        let site = format!(
            "journal: {{ path: journal, low-water: 256MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nreload: signal\n\
             listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ null: true }}, ward: {{ mllp: \"127.0.0.1:{}\", parallel: {parallel} }} }}\n",
            receiver()
        );
        let daemon = Daemon::start_site(&folder, &site);
        let began = Instant::now();
        let used = daemon.processor();
        let sent = daemon.send(&of_no_route(&asked.message(), &folder), &["--repeat", &messages.to_string(), "--connections", "16"]);
        assert_eq!(sent["accepted"].as_u64(), Some(messages));
        while daemon.metric("kiln_deliveries_total{target=\"ward\",outcome=\"delivered\"}") < messages as f64 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = began.elapsed().as_secs_f64();
        println!(
            "{messages} messages over {parallel} connections: {:.0} forwarded a second, from the first that came to the last AA of the receiver; processor a message: {:.0} us; load {}",
            messages as f64 / took,
            (daemon.processor() - used) * 1e6 / messages as f64,
            load()
        );
        daemon.stop();
        let _ = std::fs::remove_dir_all(&folder);
    }
}
