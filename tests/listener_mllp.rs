//! The MLLP listener through real sockets: order, limits, noise, half-closed peers, shutdown.
#![allow(clippy::disallowed_methods, reason = "a test waits for its tasks itself")]

use bytes::Bytes;
use kiln::exchange::Phi;
use kiln::hl7v2::AckCode;
use kiln::listener::{Ack, AllowList, Framing, Intake, Listener, ListenerConfig, Opened, Received, Reply};
use kiln::metrics::Metrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The longest that any step of a test may take.
const DEADLINE: Duration = Duration::from_secs(20);

fn ack(bytes: Bytes) -> Reply {
    Reply::Ack(Ack { bytes: Phi::new(bytes), code: AckCode::ApplicationAccept })
}

/// Answers each payload with itself; `silent` and `close` do as they say, `later` waits for a permit.
struct Echo {
    taken: AtomicUsize,
    gate: Semaphore,
}

impl Intake for Echo {
    async fn take(&self, received: Received) -> Reply {
        self.taken.fetch_add(1, Ordering::SeqCst);
        let bytes = received.bytes.expose().clone();
        if received.oversize {
            return ack(Bytes::from_static(b"too long"));
        }
        match &bytes[..] {
            b"silent" => Reply::Silent,
            b"close" => Reply::Close,
            waits if waits.starts_with(b"later") => {
                self.gate.acquire().await.expect("the gate is never closed").forget();
                ack(bytes)
            }
            _ => ack(bytes),
        }
    }
}

struct Running {
    address: SocketAddr,
    echo: Arc<Echo>,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    task: JoinHandle<()>,
}

fn start(change: impl FnOnce(&mut ListenerConfig)) -> Running {
    let mut config = ListenerConfig::new("adt", "127.0.0.1:0".parse().expect("it is an address"));
    change(&mut config);
    let metrics = Arc::new(Metrics::new());
    let listener = Listener::bind(config, Arc::clone(&metrics)).expect("a free port can be bound");
    let address = listener.local_address().expect("a bound socket has an address");
    let echo = Arc::new(Echo { taken: AtomicUsize::new(0), gate: Semaphore::new(0) });
    let closing = CancellationToken::new();
    let task = tokio::spawn(listener.run(Arc::clone(&echo), closing.clone()));
    Running { address, echo, metrics, closing, task }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the listener accepts")
    }

    async fn stop(self) {
        self.closing.cancel();
        timeout(DEADLINE, self.task).await.expect("it stops in time").expect("it does not panic");
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never: {what}\n{}", self.metrics.encode()));
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|l| l == line)
    }
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("the socket takes bytes");
}

/// Reads exactly what is expected, or says what came instead.
async fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    timeout(DEADLINE, stream.read_exact(&mut got)).await.expect("an answer comes in time").expect("the connection is open");
    assert_eq!(got.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

async fn expect_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the connection is closed in time") {
        Ok(_) => assert!(rest.is_empty(), "more came: {:?}", rest.escape_ascii().to_string()),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

/// Notes the order in which it comes to the place where messages are put in a row.
#[derive(Default)]
struct Row {
    places: std::sync::Mutex<Vec<usize>>,
}

impl Intake for Row {
    async fn take(&self, received: Received) -> Reply {
        static FREE: Semaphore = Semaphore::const_new(1_000_000);
        let _place = FREE.acquire().await.expect("the gate is never closed");
        let number = String::from_utf8_lossy(received.bytes.expose()).parse().expect("a number");
        self.places.lock().expect("no holder panics").push(number);
        ack(received.bytes.into_exposed())
    }
}

#[tokio::test]
async fn only_so_many_connections_hold_long_frames_at_once_and_all_get_their_turn() {
    const LONG: usize = 400 * 1_024;
    let running = start(|_| {});
    let mut holders = Vec::new();
    for _ in 0..16 {
        let mut stream = running.connect().await;
        send(&mut stream, &[b"\x0B".as_slice(), &vec![b'a'; LONG]].concat()).await;
        holders.push(stream);
    }
    let mut small = running.connect().await;
    let round = async |stream: &mut TcpStream| {
        send(stream, b"\x0Bsmall\x1C\r").await;
        expect(stream, b"\x0Bsmall\x1C\r").await;
    };
    // Each of them has read what it got, as far as it may.
    for _ in 0..200 {
        round(&mut small).await;
    }
    let mut last = running.connect().await;
    let frame = [b"\x0B".as_slice(), &vec![b'b'; LONG], b"\x1C\r"].concat();
    let (writing, one) = (frame.clone(), &running);
    let answered = tokio::spawn(async move {
        send(&mut last, &writing).await;
        expect(&mut last, &writing).await;
    });
    for _ in 0..200 {
        round(&mut small).await;
    }
    assert_eq!(one.echo.taken.load(Ordering::SeqCst), 400, "the seventeenth long frame was taken although sixteen are held");
    for mut stream in holders {
        send(&mut stream, b"\x1C\r").await;
        expect(&mut stream, &[b"\x0B".as_slice(), &vec![b'a'; LONG], b"\x1C\r"].concat()).await;
    }
    timeout(DEADLINE, answered).await.expect("its turn comes").expect("it is answered");
    drop(small);
    running.stop().await;
}

#[tokio::test]
async fn frames_of_one_connection_are_taken_in_their_order_also_when_very_many_come_at_once() {
    const FRAMES: usize = 2_000;
    let config = ListenerConfig::new("adt", "127.0.0.1:0".parse().expect("it is an address"));
    let listener = Listener::bind(config, Arc::default()).expect("a free port can be bound");
    let address = listener.local_address().expect("a bound socket has an address");
    let (row, closing) = (Arc::new(Row::default()), CancellationToken::new());
    let task = tokio::spawn(listener.run(Arc::clone(&row), closing.clone()));
    let mut stream = TcpStream::connect(address).await.expect("the listener accepts");
    let frames: Vec<u8> = (0..FRAMES).flat_map(|n| format!("\x0B{n}\x1C\r").into_bytes()).collect();
    send(&mut stream, &frames).await;
    expect(&mut stream, &frames).await;
    let expected: Vec<usize> = (0..FRAMES).collect();
    let places = row.places.lock().expect("no holder panics").clone();
    assert!(places == expected, "overtaken at {:?}", places.iter().zip(&expected).find(|(place, wanted)| place != wanted));
    drop(stream);
    closing.cancel();
    timeout(DEADLINE, task).await.expect("it stops in time").expect("it does not panic");
}

#[tokio::test]
async fn frames_are_answered_however_they_are_cut() {
    let running = start(|_| {});
    let mut peer = running.connect().await;
    let two = b"\x0Bfirst message\x1C\r\x0Bsecond\x1C\r";
    for at in 0..two.len() {
        send(&mut peer, &two[..at]).await;
        tokio::task::yield_now().await;
        send(&mut peer, &two[at..]).await;
        expect(&mut peer, two).await;
    }
    for byte in two {
        send(&mut peer, &[*byte]).await;
    }
    expect(&mut peer, two).await;
    running.stop().await;
}

#[tokio::test]
async fn noise_is_skipped_and_counted() {
    let running = start(|_| {});
    let mut peer = running.connect().await;
    send(&mut peer, b"noise\x0Bone\x1C\r\n\n\x0Btwo\x1C").await;
    expect(&mut peer, b"\x0Bone\x1C\r\x0Btwo\x1C\r").await;
    assert!(running.counted("kiln_noise_bytes_total{listener=\"adt\"} 7"), "{}", running.metrics.encode());
    running.stop().await;
}

#[tokio::test]
async fn noise_that_is_not_tolerated_ends_the_connection_after_what_was_framed_is_answered() {
    let running = start(|config| config.noise = false);
    let mut peer = running.connect().await;
    // Line ends are no noise.
    send(&mut peer, b"\x0Bone\x1C\r\r\n\x0Btwo\x1C\rnoise").await;
    expect(&mut peer, b"\x0Bone\x1C\r\x0Btwo\x1C\r").await;
    expect_closed(&mut peer).await;
    assert!(running.counted("kiln_frame_faults_total{listener=\"adt\",fault=\"noise\"} 1"), "{}", running.metrics.encode());
    running.stop().await;
}

#[tokio::test]
async fn what_a_peer_that_frames_wrongly_does_is_counted_by_its_kind() {
    for (bytes, fault) in
        [(&b"MSH|^~\\&|A"[..], "unframed"), (b"\x02MSH|^~\\&|A", "other-framing"), (b"\x16\x03\x01\x02\x00\x01", "tls"), (b"GET / HTTP/1.1\r\n", "http")]
    {
        let running = start(|_| {});
        let mut peer = running.connect().await;
        send(&mut peer, bytes).await;
        running.until(fault, |r| r.counted(&format!("kiln_frame_faults_total{{listener=\"adt\",fault=\"{fault}\"}} 1"))).await;
        running.stop().await;
    }
    // A frame that lacks its end alone, when the peer goes.
    let running = start(|_| {});
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0BMSH|^~\\&|A\r").await;
    drop(peer);
    running.until("no-end", |r| r.counted("kiln_frame_faults_total{listener=\"adt\",fault=\"no-end\"} 1")).await;
    running.stop().await;
}

#[tokio::test]
async fn messages_in_no_or_other_frames_are_answered_likewise_where_that_is_tolerated() {
    let running = start(|config| {
        config.tolerance.unframed = true;
        config.tolerance.no_end = true;
        config.tolerance.other = Framing::read("02 / 03");
        config.quiet = Duration::from_millis(20);
    });
    // Each waits for its answer, as such peers do; so only a pause ends the message.
    let mut peer = running.connect().await;
    for n in 0..2 {
        let message = format!("MSH|^~\\&|{n}\rPID|1\r");
        send(&mut peer, message.as_bytes()).await;
        expect(&mut peer, message.as_bytes()).await;
    }
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0BMSH|1\r").await;
    expect(&mut peer, b"\x0BMSH|1\r\x1C\r").await;
    send(&mut peer, b"\x02MSH|2\r\x03").await;
    expect(&mut peer, b"\x02MSH|2\r\x03").await;
    // The last segment's end is missing: only the end of the connection tells that nothing follows.
    let mut peer = running.connect().await;
    send(&mut peer, b"MSH|^~\\&|last").await;
    peer.shutdown().await.expect("the socket is open");
    expect(&mut peer, b"MSH|^~\\&|last").await;
    for (switch, n) in [("unframed", 3), ("no-end", 1), ("framing", 1)] {
        let line = format!("kiln_tolerated_total{{listener=\"adt\",switch=\"{switch}\"}} {n}");
        assert!(running.counted(&line), "{line} is not in\n{}", running.metrics.encode());
    }
    running.stop().await;
}

#[tokio::test]
async fn an_answer_that_comes_late_is_framed_as_its_own_message_was() {
    let running = start(|config| config.tolerance.other = Some(Framing::read("02 / 03 0D").expect("it is a framing")));
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0Blater\x1C\r\x02quick\x03\r").await;
    running.until("both are taken", |r| r.echo.taken.load(Ordering::SeqCst) == 2).await;
    running.echo.gate.add_permits(1);
    expect(&mut peer, b"\x0Blater\x1C\r\x02quick\x03\r").await;
    running.stop().await;
}

#[tokio::test]
async fn noise_from_before_it_was_forbidden_does_not_count() {
    let mut config = ListenerConfig::new("adt", "127.0.0.1:0".parse().expect("it is an address"));
    let listener = Listener::bind(config.clone(), Arc::new(Metrics::new())).expect("a free port can be bound");
    let (address, reins) = (listener.local_address().expect("a bound socket has an address"), listener.reins());
    let echo = Arc::new(Echo { taken: AtomicUsize::new(0), gate: Semaphore::new(0) });
    let closing = CancellationToken::new();
    let task = tokio::spawn(listener.run(echo, closing.clone()));
    let mut peer = TcpStream::connect(address).await.expect("the listener accepts");
    send(&mut peer, b"noise\x0Bone\x1C\r").await;
    expect(&mut peer, b"\x0Bone\x1C\r").await;
    config.noise = false;
    reins.change(Opened::read(config).expect("settings that can be opened"));
    send(&mut peer, b"\x0Btwo\x1C\r").await;
    expect(&mut peer, b"\x0Btwo\x1C\r").await;
    send(&mut peer, b"noise\x0Bthree\x1C\r").await;
    expect(&mut peer, b"\x0Bthree\x1C\r").await;
    expect_closed(&mut peer).await;
    closing.cancel();
    timeout(DEADLINE, task).await.expect("it stops in time").expect("it does not panic");
}

#[tokio::test]
async fn a_pause_within_a_segment_ends_nothing() {
    let running = start(|config| {
        config.tolerance.no_end = true;
        config.quiet = Duration::from_millis(1);
        config.frame_timeout = Duration::from_millis(200);
    });
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0BMSH|1\rPID|1|").await;
    expect_closed(&mut peer).await;
    assert_eq!(running.echo.taken.load(Ordering::SeqCst), 0, "a message that is cut off is none");
    running.stop().await;
}

#[tokio::test]
async fn replies_keep_the_order_of_the_messages_and_silence_takes_no_place() {
    let running = start(|_| {});
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0Blater\x1C\r\x0Bsilent\x1C\r\x0Bquick\x1C\r").await;
    running.until("all three are taken at once", |r| r.echo.taken.load(Ordering::SeqCst) == 3).await;
    running.echo.gate.add_permits(1);
    expect(&mut peer, b"\x0Blater\x1C\r\x0Bquick\x1C\r").await;
    running.stop().await;
}

#[tokio::test]
async fn a_full_hand_over_stops_the_reading() {
    let running = start(|c| c.in_flight_max = 2);
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0Blater 1\x1C\r\x0Blater 2\x1C\r\x0Blater 3\x1C\r").await;
    running.until("two are taken", |r| r.echo.taken.load(Ordering::SeqCst) == 2).await;
    // Another peer is served meanwhile; the third message of the first stays where it is.
    let mut other = running.connect().await;
    send(&mut other, b"\x0Bquick\x1C\r").await;
    expect(&mut other, b"\x0Bquick\x1C\r").await;
    assert_eq!(running.echo.taken.load(Ordering::SeqCst), 3, "two of the first peer, one of the other");
    running.echo.gate.add_permits(3);
    expect(&mut peer, b"\x0Blater 1\x1C\r\x0Blater 2\x1C\r\x0Blater 3\x1C\r").await;
    running.stop().await;
}

#[tokio::test]
async fn close_answers_what_came_before_and_nothing_after() {
    let running = start(|_| {});
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0Bone\x1C\r\x0Bclose\x1C\r\x0Bthree\x1C\r").await;
    expect(&mut peer, b"\x0Bone\x1C\r").await;
    expect_closed(&mut peer).await;
    running.stop().await;
}

#[tokio::test]
async fn a_half_closed_peer_still_gets_its_acknowledgements() {
    let running = start(|_| {});
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0Blater\x1C\r").await;
    peer.shutdown().await.expect("our side can be closed");
    running.until("it is taken", |r| r.echo.taken.load(Ordering::SeqCst) == 1).await;
    running.echo.gate.add_permits(1);
    expect(&mut peer, b"\x0Blater\x1C\r").await;
    expect_closed(&mut peer).await;
    running.stop().await;
}

#[tokio::test]
async fn an_oversize_frame_is_answered_and_the_connection_closed() {
    let running = start(|c| c.frame_bytes_max = 10);
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0B0123456789\x1C\r").await;
    expect(&mut peer, b"\x0B0123456789\x1C\r").await;
    send(&mut peer, b"\x0B0123456789A").await;
    expect(&mut peer, b"\x0Btoo long\x1C\r").await;
    expect_closed(&mut peer).await;
    assert!(running.counted("kiln_frame_faults_total{listener=\"adt\",fault=\"oversize\"} 1"));
    running.stop().await;
}

#[tokio::test]
async fn a_slow_frame_and_an_idle_peer_are_closed_each_by_its_own_limit() {
    let running = start(|c| (c.frame_timeout, c.idle_timeout) = (Duration::from_millis(150), Some(Duration::from_secs(3_600))));
    let mut loris = running.connect().await;
    let drip = tokio::spawn(async move {
        // A byte now and then keeps no frame alive: the limit is for the whole frame.
        send(&mut loris, b"\x0B").await;
        while loris.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    timeout(DEADLINE, drip).await.expect("the slow peer is closed").expect("its task does not panic");
    assert!(running.counted("kiln_frame_faults_total{listener=\"adt\",fault=\"slow-frame\"} 1"), "{}", running.metrics.encode());
    running.stop().await;

    let running = start(|c| (c.frame_timeout, c.idle_timeout) = (Duration::from_secs(3_600), Some(Duration::from_millis(100))));
    let mut idle = running.connect().await;
    send(&mut idle, b"\x0Bone\x1C\r").await;
    expect(&mut idle, b"\x0Bone\x1C\r").await;
    expect_closed(&mut idle).await;
    assert!(running.counted("kiln_frame_faults_total{listener=\"adt\",fault=\"idle\"} 1"), "{}", running.metrics.encode());
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_accepted_over_the_connection_limit_until_a_place_is_free() {
    let running = start(|c| c.connections_max = 2);
    let (mut one, mut two) = (running.connect().await, running.connect().await);
    for peer in [&mut one, &mut two] {
        send(peer, b"\x0Bhello\x1C\r").await;
        expect(peer, b"\x0Bhello\x1C\r").await;
    }
    // The system completes the handshake; Kiln does not take the connection.
    let mut three = running.connect().await;
    send(&mut three, b"\x0Bthird\x1C\r").await;
    send(&mut one, b"\x0Bagain\x1C\r").await;
    expect(&mut one, b"\x0Bagain\x1C\r").await;
    assert_eq!(running.echo.taken.load(Ordering::SeqCst), 3, "the third peer was served although two are connected");
    drop(two);
    expect(&mut three, b"\x0Bthird\x1C\r").await;
    running.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_not_allowed_is_closed_at_once() {
    let running = start(|c| c.allow = AllowList(vec!["10.0.0.0/8".parse().expect("it is a network")]));
    let mut peer = running.connect().await;
    expect_closed(&mut peer).await;
    assert!(running.counted("kiln_frame_faults_total{listener=\"adt\",fault=\"not-allowed\"} 1"));
    running.stop().await;
}

#[tokio::test]
async fn shutdown_answers_what_was_read_and_then_closes() {
    let running = start(|_| {});
    let mut peer = running.connect().await;
    send(&mut peer, b"\x0Blater 1\x1C\r\x0Blater 2\x1C\r\x0Bunfinis").await;
    running.until("both are taken", |r| r.echo.taken.load(Ordering::SeqCst) == 2).await;
    running.closing.cancel();
    running.echo.gate.add_permits(2);
    expect(&mut peer, b"\x0Blater 1\x1C\r\x0Blater 2\x1C\r").await;
    expect_closed(&mut peer).await;
    assert!(TcpStream::connect(running.address).await.is_err(), "a closing listener accepts nothing");
    let metrics = Arc::clone(&running.metrics);
    drop(peer);
    running.stop().await;
    assert!(metrics.encode().contains("kiln_connections{listener=\"adt\"} 0\n"));
}
