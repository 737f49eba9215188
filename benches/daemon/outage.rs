//! A server that is away while messages come.

use crate::harness::{Asked, Daemon, load};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A server that is down while a million messages come, and then is there: memory meanwhile, and how long it takes until all have gone out.
/// The server says that it has saved whatever it gets, so that this is what Kiln takes and not what a server does.
pub(super) fn drain(asked: &Asked) {
    let (messages, parallel, connections) = (asked.number("--messages", 1_000_000), asked.number("--parallel", 8), asked.text("--connections", "64"));
    let folder = asked.folder();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let daemon = Daemon::start_with(&folder, &format!("fhir: 'http://{address}/r4', parallel: {parallel}"));
    let began = (Instant::now(), daemon.processor());
    let sent = daemon.send(&asked.message(), &["--repeat", &messages.to_string(), "--connections", &connections]);
    assert_eq!(sent["accepted"].as_u64(), Some(messages));
    let us = |seconds: f64| seconds * 1e6 / messages as f64;
    println!(
        "{messages} messages with the server down: {:.0} AA/s; processor a message {:.1} us; {} MB resident at most; load {}",
        messages as f64 / began.0.elapsed().as_secs_f64(),
        us(daemon.processor() - began.1),
        daemon.resident(),
        load()
    );
    let socket = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || socket.incoming().flatten().for_each(|stream| drop(std::thread::spawn(move || says_yes(stream)))));
    let (began, busy) = (Instant::now(), daemon.processor());
    while daemon.delivered() < 1.0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let noticed = began.elapsed().as_secs_f64();
    daemon.drain();
    let seconds = began.elapsed().as_secs_f64() - 0.9;
    println!(
        "the server is back: the first delivery after {noticed:.1} s, all after {seconds:.1} s, {:.0}/s over {parallel} connections; processor a message {:.1} us; {} MB resident at most; load {}",
        daemon.delivered() / seconds,
        us(daemon.processor() - busy),
        daemon.resident(),
        load()
    );
    daemon.stop();
    let _ = std::fs::remove_dir_all(&folder);
}

/// A FHIR server that has saved whatever it is sent.
fn says_yes(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut next = 0_u64;
    loop {
        let (mut line, mut length, mut asked) = (String::new(), 0, None);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).is_ok_and(|n| n == 0) {
                return;
            }
            asked.get_or_insert_with(|| line.clone());
            length = line.to_ascii_lowercase().strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let bundle: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = match bundle["entry"].as_array() {
            Some(entries) => {
                let saved = entries.iter().map(|entry| {
                    next += 1;
                    let resource_type = entry["resource"]["resourceType"].as_str().unwrap_or("Patient");
                    serde_json::json!({ "response": { "status": "201 Created", "location": format!("{resource_type}/x{next}/_history/1"), "etag": "W/\"1\"" } })
                });
                serde_json::json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": saved.collect::<Vec<_>>() })
            }
            // A resource by its id, as it was never changed by anybody else; or a search that finds nothing.
            None => match asked.unwrap_or_default().split(' ').nth(1).unwrap_or_default().trim_start_matches("/r4/").split_once('/') {
                Some((resource_type, id)) => serde_json::json!({ "resourceType": resource_type, "id": id, "meta": { "versionId": "1" } }),
                None => serde_json::json!({ "resourceType": "Bundle", "type": "searchset", "total": 0 }),
            },
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n", answer.len());
        if stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).is_err() {
            return;
        }
    }
}
