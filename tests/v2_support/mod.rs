//! What the tests of v2 targets share: a receiver of MLLP that does what its script says, and sees what came on which connection.
#![allow(unreachable_pub, reason = "a module of several tests")]
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

pub mod proxy;
pub mod sender;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The number of its connection, from 0.
    pub connection: usize,
    /// Its number, from 0.
    pub number: usize,
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn control_id(&self) -> String {
        control_id(&self.text())
    }

    /// An acknowledgement of it, framed.
    pub fn ack(&self, code: &str) -> Step {
        Step::Say(framed(&ack(code, &self.control_id(), "")))
    }
}

/// What a receiver does with a message.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes these bytes as they are.
    Say(Vec<u8>),
    /// Writes them one by one, each in a packet of its own.
    Spell(Vec<u8>),
    Wait(Duration),
    /// Closes the connection.
    Close,
    /// Resets it.
    Reset,
}

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

/// A receiver of MLLP; it ends with the runtime of its test.
#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<std::sync::atomic::AtomicUsize>,
}

impl Receiver {
    pub async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), script).await
    }

    pub async fn at(address: SocketAddr, script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind(address).await.expect("a free port can be bound");
        let receiver = Self { address: socket.local_addr().expect("an address"), seen: Arc::default(), connections: Arc::default() };
        let (this, script): (_, Arc<Script>) = (receiver.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let number = this.connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::spawn(serve(stream, number, Arc::clone(&this.seen), Arc::clone(&script)));
            }
        });
        receiver
    }

    /// One that accepts everything.
    pub async fn accepting() -> Self {
        Self::start(|seen| vec![seen.ack("AA")]).await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    pub fn control_ids(&self) -> Vec<String> {
        self.seen().iter().map(Seen::control_id).collect()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(std::sync::atomic::Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, connection: usize, seen: Arc<Mutex<Vec<Seen>>>, script: Arc<Script>) {
    let mut gathered = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = match stream.read(&mut buffer).await {
            Ok(n @ 1..) => n,
            Ok(_) | Err(_) => return,
        };
        gathered.extend_from_slice(&buffer[..n]);
        while let Some(end) = gathered.windows(2).position(|w| w == [0x1C, 0x0D]) {
            let frame: Vec<u8> = gathered.drain(..end + 2).collect();
            let one = {
                let mut all = seen.lock().expect("no panic");
                let number = all.len();
                all.push(Seen { connection, number, bytes: frame[1..end].to_vec() });
                all.last().expect("just pushed").clone()
            };
            for step in script(&one) {
                match step {
                    Step::Say(bytes) => {
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Step::Spell(bytes) => {
                        stream.set_nodelay(true).expect("a socket");
                        for byte in bytes {
                            if stream.write_all(&[byte]).await.is_err() {
                                return;
                            }
                            tokio::task::yield_now().await;
                        }
                    }
                    Step::Wait(time) => tokio::time::sleep(time).await,
                    Step::Close => return,
                    Step::Reset => {
                        stream.set_zero_linger().expect("a socket");
                        return;
                    }
                }
            }
        }
    }
}

pub fn control_id(message: &str) -> String {
    let msh = message.trim_start().split(['\r', '\n']).next().unwrap_or("");
    msh.split(msh.chars().nth(3).unwrap_or('|')).nth(9).unwrap_or("").to_owned()
}

pub fn framed(text: &str) -> Vec<u8> {
    [b"\x0B", text.as_bytes(), b"\x1C\r"].concat()
}

/// `more` is what follows MSA.
pub fn ack(code: &str, control_id: &str, more: &str) -> String {
    format!("MSH|^~\\&|R|R|S|S|2026||ACK|A{control_id}|P|2.5.1\rMSA|{code}|{control_id}\r{more}")
}

/// An ADT of a patient; `asks` is MSH-15 and -16.
pub fn adt(control_id: &str, patient: &str, asks: &str) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|R|R|20260309142501||ADT^A08^ADT_A01|{control_id}|P|2.5.1|||{asks}\rEVN|A08|20260309142501\rPID|1||{patient}^^^HOSP^MR||Meier^Eva\r"
    )
}
