//! A proxy between an MLLP client and its server that splits, delays, repeats, loses and resets, by the dice of a seed.

use super::framed;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How often, in percent of frames, each thing happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The message goes on in small pieces, each in a packet of its own.
    pub split: u64,
    /// So does the answer.
    pub split_answer: u64,
    /// It waits for up to 5 ms.
    pub delay: u64,
    /// The connection is reset before the message goes on.
    pub reset_before: u64,
    /// The connection is reset in the middle of the message.
    pub reset_within: u64,
    /// The message goes on, its answer is thrown away and the connection reset.
    pub lose_answer: u64,
    /// Half of the answer goes on; then the connection is closed.
    pub cut_answer: u64,
    /// The client's side is closed for writing after the message; its answer may still come.
    pub half_close: u64,
    /// The answer of an earlier message comes first.
    pub earlier_answer: u64,
    /// The answer comes twice.
    pub repeat_answer: u64,
    /// Bytes that are no frame come before the answer.
    pub noise: u64,
}

impl Faults {
    /// What loses nothing: whoever speaks MLLP must not even notice.
    pub const HARMLESS: Self = Self {
        split: 60,
        split_answer: 60,
        delay: 20,
        reset_before: 0,
        reset_within: 0,
        lose_answer: 0,
        cut_answer: 0,
        half_close: 0,
        earlier_answer: 0,
        repeat_answer: 0,
        noise: 0,
    };
    /// What happens to a connection at its worst.
    pub const ALL: Self = Self {
        split: 40,
        split_answer: 40,
        delay: 20,
        reset_before: 4,
        reset_within: 4,
        lose_answer: 4,
        cut_answer: 4,
        half_close: 4,
        earlier_answer: 8,
        repeat_answer: 8,
        noise: 8,
    };
}

/// The proxy; it ends with the runtime of its test.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    behind: SocketAddr,
    faults: Faults,
    dice: AtomicU64,
    calm: AtomicBool,
    /// Things that were done to somebody.
    done: AtomicU64,
}

impl Shared {
    fn number(&self) -> u64 {
        let n = self.dice.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let x = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn happens(&self, percent: u64) -> bool {
        let happens = !self.calm.load(Ordering::Relaxed) && self.number() % 100 < percent;
        if happens {
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        happens
    }
}

impl Proxy {
    pub async fn before(behind: SocketAddr, faults: Faults, seed: u64) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let shared = Arc::new(Shared { behind, faults, dice: AtomicU64::new(seed), calm: AtomicBool::new(false), done: AtomicU64::new(0) });
        let of_connections = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = socket.accept().await {
                let shared = Arc::clone(&of_connections);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(shared.behind).await {
                        pass(client, server, &shared).await;
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// Nothing happens any more.
    pub fn calm(&self) {
        self.shared.calm.store(true, Ordering::Relaxed);
    }

    /// How often something was done.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }
}

/// One connection, a message and its answer at a time, as its client has it.
async fn pass(mut client: TcpStream, mut server: TcpStream, shared: &Shared) {
    let faults = shared.faults;
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    let mut earlier: Option<Vec<u8>> = None;
    loop {
        // Whatever the server says on its own goes on as it is: a second answer to what it had before.
        let Some(message) = frame(&mut client, &mut from_client, &mut server, &mut from_server).await else { return };
        if shared.happens(faults.reset_before) {
            return reset(client);
        }
        if shared.happens(faults.reset_within) {
            let half = message.len() / 2;
            let _ = server.write_all(&message[..half]).await;
            return reset(client);
        }
        if !forward(&mut server, &message, shared.faults.split, shared).await {
            return;
        }
        // An acknowledgement of an acknowledgement, which nobody answers.
        if message.windows(5).any(|w| w == b"\rMSA|") {
            continue;
        }
        if shared.happens(faults.half_close) {
            let _ = server.shutdown().await;
        }
        let Some(answer) = next(&mut server, &mut from_server).await else {
            return;
        };
        if shared.happens(faults.lose_answer) {
            return reset(client);
        }
        if shared.happens(faults.cut_answer) {
            let _ = client.write_all(&answer[..answer.len() / 2]).await;
            return;
        }
        if shared.happens(faults.noise) && client.write_all(b"\r\nnoise\r\n").await.is_err() {
            return;
        }
        if shared.happens(faults.earlier_answer) {
            let other = earlier.clone().unwrap_or_else(|| framed("MSH|^~\\&|R\rMSA|AA|nobody-s\r"));
            if client.write_all(&other).await.is_err() {
                return;
            }
        }
        let times = if shared.happens(faults.repeat_answer) { 2 } else { 1 };
        for _ in 0..times {
            if !forward(&mut client, &answer, shared.faults.split_answer, shared).await {
                return;
            }
        }
        earlier = Some(answer);
    }
}

fn reset(client: TcpStream) {
    let _ = client.set_zero_linger();
}

/// `split`: how often, in percent, it goes on in pieces.
async fn forward(to: &mut TcpStream, frame: &[u8], split: u64, shared: &Shared) -> bool {
    if shared.happens(shared.faults.delay) {
        tokio::time::sleep(Duration::from_micros(shared.number() % 5_000)).await;
    }
    if !shared.happens(split) {
        return to.write_all(frame).await.is_ok();
    }
    let mut rest = frame;
    while !rest.is_empty() {
        let n = (1 + shared.number() as usize % 40).min(rest.len());
        let (piece, more) = rest.split_at(n);
        if to.write_all(piece).await.is_err() {
            return false;
        }
        rest = more;
        tokio::task::yield_now().await;
    }
    true
}

/// The next frame of the server, with its framing; `None` when it has closed.
async fn next(stream: &mut TcpStream, gathered: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 1 << 14];
    loop {
        if let Some(frame) = whole(gathered) {
            return Some(frame);
        }
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => gathered.extend_from_slice(&buffer[..n]),
            Ok(_) | Err(_) => return None,
        }
    }
}

/// The client's next frame. Meanwhile what the server says goes on, and its close is the client's.
async fn frame(client: &mut TcpStream, gathered: &mut Vec<u8>, server: &mut TcpStream, from_server: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 14]);
    loop {
        if let Some(answer) = whole(from_server) {
            client.write_all(&answer).await.ok()?;
        }
        if let Some(frame) = whole(gathered) {
            return Some(frame);
        }
        tokio::select! {
            read = client.read(&mut a) => match read {
                Ok(n @ 1..) => gathered.extend_from_slice(&a[..n]),
                Ok(_) | Err(_) => return None,
            },
            read = server.read(&mut b) => match read {
                Ok(n @ 1..) => from_server.extend_from_slice(&b[..n]),
                Ok(_) | Err(_) => return None,
            },
        }
    }
}

fn whole(gathered: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = gathered.windows(2).position(|w| w == [0x1C, 0x0D])?;
    Some(gathered.drain(..end + 2).collect())
}
