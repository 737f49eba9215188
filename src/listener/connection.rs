//! One connection: frames in, replies out in the order of the frames, within the listener's limits.

use crate::exchange::{Phi, Row, Timestamp};
use crate::listener::greet::Stream;
use crate::listener::line::Push;
use crate::listener::mllp::Live;
use crate::listener::{Intake, Line, Opened, Peer, Received, Reply, WayBack};
use crate::metrics::{FrameFault, Metrics};
use crate::wire::{Frame, Looks, Mllp, Sample, Style};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::stream::{FuturesOrdered, StreamExt};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

/// How much of an oversize frame is handed over: enough for any MSH.
pub(super) const HEAD_BYTES: usize = 4_096;
/// How much the socket is asked for at once, in bytes.
const READ_BYTES: usize = 16 * 1_024;
/// After the last reply, how long the peer may take to close its side before we do.
const LINGER: Duration = Duration::from_secs(1);
/// A connection may hold so many bytes of frames, whole or not, without asking; for more it takes one of the listener's places for
/// large frames, so that many connections with long frames cannot fill the memory. While a frame of so many bytes waits for its reply, no further one of
/// the connection is taken.
pub const SMALL_BYTES: usize = 256 * 1_024;
/// A frame that is longer still holds a document.
const DOCUMENT_BYTES: usize = 2 * 1_024 * 1_024;
/// How many frames that others ask to be sent may wait for answers that go first.
const PUSHED_MAX: usize = 256;
/// A time that never comes, for "no limit".
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Why a connection ended.
enum End {
    /// The peer closed its side; everything was answered.
    PeerClosed,
    /// Kiln shuts down; everything that was read is answered.
    Closing,
    /// A limit, a reply of `Close`, or a frame over the limit.
    GivenUp,
    /// The socket failed.
    Broken,
}

/// Serves the connection until it ends.
pub(super) async fn serve<I: Intake>(
    mut stream: Stream,
    peer: SocketAddr,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    intake: Arc<I>,
    large_frames: Arc<Semaphore>,
    closing: CancellationToken,
) {
    let config = live.config();
    let mut mllp = Mllp::new(config.frame_bytes_max);
    mllp.set_tolerance(config.tolerance.clone());
    let (line, mut pushes) = Line::new();
    let mut connection = Connection {
        peer,
        live: &live,
        config,
        metrics: &metrics,
        large_frames: &large_frames,
        mllp,
        lacks_end: false,
        line,
        row: Arc::default(),
        frames: 0,
        answered: 0,
        styles: VecDeque::new(),
        style: Style::Mllp,
    };
    let end = match &mut stream {
        Either::Left(plain) => {
            let (reader, writer) = plain.split();
            connection.exchange(reader, writer, &*intake, &mut pushes, &closing).await
        }
        Either::Right(tls) => {
            let (reader, writer) = tokio::io::split(tls);
            connection.exchange(reader, writer, &*intake, &mut pushes, &closing).await
        }
    };
    drop(pushes);
    connection.count_noise(true);
    if connection.mllp.inside_frame() && !matches!(end, End::GivenUp) {
        metrics.frame_fault(&connection.config.name, FrameFault::Truncated);
        connection.say_if_only_the_end_is_missing();
        tracing::warn!(listener = %connection.config.name, %peer, "the connection ended within a frame; the peer has no acknowledgement for it");
    }
    if !matches!(end, End::Broken) {
        linger(&mut stream).await;
    }
}

/// Closes our side and reads until the peer has closed its own, so that unread bytes don't turn the close into a reset
/// that would destroy acknowledgements on their way.
async fn linger(stream: &mut Stream) {
    const DISCARD_BYTES_MAX: usize = 1 << 20;
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut scratch = vec![0; 4_096];
    let discard = async {
        let mut discarded = 0;
        while let Ok(n) = stream.read(&mut scratch).await
            && n > 0
            && discarded < DISCARD_BYTES_MAX
        {
            discarded += n;
        }
    };
    // Running out of time here is no fault: the peer simply keeps its side open.
    let _ = timeout(LINGER, discard).await;
}

/// Lets a frame's intake go as far as it can at its first turn. Tokio's budget would put it off now and then, behind frames that
/// came after it, and a patient's messages would be stored out of order. Reading and writing still yield to other tasks.
fn in_turn<F: Future>(take: F) -> Unconstrained<F> {
    unconstrained(take)
}

struct Connection<'a> {
    peer: SocketAddr,
    live: &'a Live,
    /// The settings with which the message at hand began.
    config: Arc<Opened>,
    metrics: &'a Metrics,
    large_frames: &'a Semaphore,
    mllp: Mllp,
    /// True if the frame that the connection's end or a time limit cut off lacks its end block alone.
    lacks_end: bool,
    /// By which others send on it.
    line: Line,
    /// Its messages, of which none overtakes one before it.
    row: Arc<Row>,
    /// Frames that were handed over, and those of them that have been answered.
    frames: u64,
    answered: u64,
    /// How those are framed that wait for their answer, in their order, and how the one was that was answered last.
    styles: VecDeque<Style>,
    style: Style,
}

impl Connection<'_> {
    async fn exchange<R, W, I>(&mut self, mut reader: R, mut writer: W, intake: &I, pushes: &mut mpsc::Receiver<Push>, closing: &CancellationToken) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        I: Intake,
    {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut out = BytesMut::new();
        let mut replies = FuturesOrdered::new();
        // How long the messages are that wait for their reply, and a place for large frames while one is needed.
        let (mut waiting, mut place) = (VecDeque::new(), None);
        // What is to be sent without having been asked for, and is not yet, since answers of earlier frames go first.
        let mut pushed: Vec<Push> = Vec::new();
        // `reading` ends with the peer's half, with a shutdown, or with a frame over the limit; replies go on until all are sent.
        let (mut reading, mut last) = (true, End::PeerClosed);
        let mut more_frames = true;
        let mut last_byte = Instant::now();
        let mut frame_began: Option<Instant> = None;
        let mut timer = pin!(sleep_until(Instant::now() + self.config.idle_timeout.unwrap_or(NEVER)));
        loop {
            self.renew();
            while waiting.len() > replies.len() {
                waiting.pop_front();
            }
            let mut waiting_bytes: usize = waiting.iter().sum();
            while more_frames && self.takes_more(replies.len(), waiting_bytes) {
                match self.mllp.next_frame(&mut buffer) {
                    Ok(Some(frame)) => {
                        waiting.push_back(frame.payload.len());
                        waiting_bytes += frame.payload.len();
                        let received = self.hand_over_frame(frame);
                        replies.push_back(in_turn(intake.take(received)));
                    }
                    Ok(None) => more_frames = false,
                    Err(_) => {
                        self.metrics.frame_fault(&self.config.name, FrameFault::Oversize);
                        tracing::warn!(listener = %self.config.name, peer = %self.peer, limit_bytes = self.config.frame_bytes_max, "a frame is over the limit");
                        let head = Bytes::copy_from_slice(buffer.get(..HEAD_BYTES).unwrap_or(&buffer));
                        waiting.push_back(head.len());
                        let style = self.mllp.style_at_hand().unwrap_or(Style::Mllp);
                        let received = self.hand_over(head, style, true);
                        replies.push_back(in_turn(intake.take(received)));
                        (reading, more_frames, last) = (false, false, End::GivenUp);
                        buffer.clear();
                    }
                }
            }
            if self.count_noise(false) && reading {
                self.metrics.frame_fault(&self.config.name, FrameFault::Noise);
                tracing::warn!(listener = %self.config.name, peer = %self.peer, "closed a connection: bytes came outside of frames, and `tolerate` of this listener has noise: off");
                (reading, more_frames, last) = (false, false, End::GivenUp);
                buffer.clear();
            }
            if !reading && !more_frames && replies.is_empty() {
                return last;
            }
            if !more_frames && self.mllp.inside_frame() {
                let began = *frame_began.get_or_insert(last_byte);
                let mut deadline = began + self.config.frame_timeout;
                if self.mllp.may_end_here(&buffer) {
                    deadline = deadline.min(last_byte + self.config.quiet);
                }
                if deadline < timer.deadline() {
                    timer.as_mut().reset(deadline);
                }
            } else {
                frame_began = None;
            }
            let wants_more = reading && !more_frames && self.takes_more(replies.len(), waiting_bytes);
            let held = buffer.len() + waiting_bytes;
            if held == 0 && place.take().is_some() {
                // With its place a connection gives the long frame's memory back too.
                buffer = BytesMut::with_capacity(READ_BYTES);
            }
            let has_place = place.is_some() || held < SMALL_BYTES;
            let may_read = wants_more && has_place && intake.has_room();
            let mut room = (&mut buffer).limit(if place.is_some() { usize::MAX } else { SMALL_BYTES.saturating_sub(held) });
            tokio::select! {
                biased;
                Some(reply) = replies.next(), if !replies.is_empty() => {
                    if let Some(end) = self.send(reply, &mut replies, &mut writer, &mut out).await {
                        return end;
                    }
                    if !pushed.is_empty()
                        && let Some(end) = self.push(&mut pushed, &mut writer, &mut out).await
                    {
                        return end;
                    }
                }
                Some(push) = pushes.recv(), if pushed.len() < PUSHED_MAX => {
                    pushed.push(push);
                    if let Some(end) = self.push(&mut pushed, &mut writer, &mut out).await {
                        return end;
                    }
                }
                () = closing.cancelled(), if reading => (reading, last) = (false, End::Closing),
                read = reader.read_buf(&mut room), if may_read => match read {
                    Ok(0) => {
                        reading = false;
                        self.lacks_end = self.mllp.lacks_end(&buffer);
                        if let Some(frame) = self.mllp.take_at_end(&mut buffer) {
                            waiting.push_back(frame.payload.len());
                            replies.push_back(in_turn(intake.take(self.hand_over_frame(frame))));
                        }
                    }
                    Ok(_) => {
                        last_byte = Instant::now();
                        more_frames = true;
                        // A short frame's memory is used again, a longer one's buffer grows by doubling. A document would stand in memory twice while it is
                        // moved: it gets room for the longest frame at once, which counts only as far as it is written to.
                        if buffer.capacity() - buffer.len() < READ_BYTES / 8 {
                            let rest = self.config.frame_bytes_max.saturating_sub(buffer.len());
                            buffer.reserve(READ_BYTES.max(if buffer.len() < DOCUMENT_BYTES { buffer.len().min(rest) } else { rest }));
                        }
                    }
                    // TLS was not closed before TCP was. Frames say for themselves whether they are whole.
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => reading = false,
                    Err(_) => return End::Broken,
                },
                // No limit runs against a peer while it is Kiln that has no room.
                found = self.large_frames.acquire(), if wants_more && !has_place => {
                    place = Some(found.expect("the semaphore is never closed"));
                    last_byte = Instant::now();
                    frame_began = frame_began.map(|_| last_byte);
                }
                () = intake.room(), if wants_more && has_place && !may_read => {
                    last_byte = Instant::now();
                    frame_began = frame_began.map(|_| last_byte);
                }
                () = timer.as_mut(), if may_read => {
                    let now = Instant::now();
                    let paused = now >= last_byte + self.config.quiet;
                    if let Some(frame) = if paused { self.mllp.take_after_pause(&mut buffer) } else { None } {
                        waiting.push_back(frame.payload.len());
                        replies.push_back(in_turn(intake.take(self.hand_over_frame(frame))));
                        continue;
                    }
                    let idle = last_byte + self.config.idle_timeout.unwrap_or(NEVER);
                    let (deadline, fault) = match frame_began {
                        Some(began) => (began + self.config.frame_timeout, FrameFault::SlowFrame),
                        None => (idle, FrameFault::Idle),
                    };
                    if now < deadline {
                        timer.as_mut().reset(deadline);
                    } else if replies.is_empty() {
                        self.metrics.frame_fault(&self.config.name, fault);
                        self.lacks_end = self.mllp.lacks_end(&buffer);
                        self.say_if_only_the_end_is_missing();
                        tracing::info!(listener = %self.config.name, peer = %self.peer, fault = fault.word(), "closed a connection");
                        return End::GivenUp;
                    } else {
                        // Somebody is still owed an answer: first that, then the limit.
                        timer.as_mut().reset(now + Duration::from_millis(100));
                    }
                }
            }
        }
    }

    /// Between two messages, takes over settings that were changed meanwhile.
    fn renew(&mut self) {
        if !self.mllp.inside_frame()
            && let Some(config) = self.live.other_than(&self.config)
        {
            self.mllp.set_limit(config.frame_bytes_max);
            self.mllp.set_tolerance(config.tolerance.clone());
            self.mllp.forget_skipped_text();
            self.config = config;
        }
    }

    /// Whether a further message may wait for its reply besides those that do.
    fn takes_more(&self, waiting: usize, waiting_bytes: usize) -> bool {
        waiting < self.config.in_flight_max && waiting_bytes < SMALL_BYTES
    }

    fn hand_over_frame(&mut self, frame: Frame) -> Received {
        match frame.style {
            Style::Mllp if frame.unended => self.metrics.tolerated(&self.config.name, "no-end"),
            Style::Mllp => {}
            Style::Other => self.metrics.tolerated(&self.config.name, "framing"),
            Style::Bare => self.metrics.tolerated(&self.config.name, "unframed"),
        }
        self.hand_over(frame.payload, frame.style, false)
    }

    fn hand_over(&mut self, payload: Bytes, style: Style, oversize: bool) -> Received {
        self.frames += 1;
        self.styles.push_back(style);
        Received {
            listener: Arc::clone(&self.config.name),
            peer: Peer::Socket(self.peer),
            received: Timestamp(jiff::Timestamp::now().as_millisecond()),
            bytes: Phi::new(payload),
            oversize,
            back: Some(WayBack { line: self.line.clone(), frames: self.frames }),
            charset: None,
            row: Some(Arc::clone(&self.row)),
        }
    }

    /// Sends one reply, and with it all that are ready behind it, in one write. `Some` if the connection ends here.
    async fn send<F: Future<Output = Reply>>(
        &mut self,
        first: Reply,
        replies: &mut FuturesOrdered<F>,
        writer: &mut (impl AsyncWrite + Unpin),
        out: &mut BytesMut,
    ) -> Option<End> {
        let (mut next, mut end) = (Some(first), None);
        while let Some(reply) = next.take() {
            self.answered += 1;
            self.style = self.styles.pop_front().unwrap_or(self.style);
            match reply {
                Reply::Ack(ack) => self.mllp.write_answer(self.style, ack.bytes.expose(), out),
                Reply::Acks(all) => all.iter().for_each(|ack| self.mllp.write_answer(self.style, ack.bytes.expose(), out)),
                Reply::Silent => {}
                Reply::Close => {
                    end = Some(End::GivenUp);
                    break;
                }
            }
            next = replies.next().now_or_never().flatten();
        }
        if out.is_empty() {
            return end;
        }
        self.write(writer, out).await.err().or(end)
    }

    /// Sends what others asked for, as far as it is its turn. `Some` if the connection ends here.
    async fn push(&self, pushed: &mut Vec<Push>, writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> Option<End> {
        let (due, later): (Vec<_>, Vec<_>) = pushed.drain(..).partition(|push| push.after <= self.answered);
        *pushed = later;
        due.iter().for_each(|push| self.mllp.write_answer(self.style, push.bytes.expose(), out));
        if !out.is_empty()
            && let Err(end) = self.write(writer, out).await
        {
            return Some(end);
        }
        for push in due {
            // Who no longer waits asks again.
            let _ = push.sent.send(());
        }
        None
    }

    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> Result<(), End> {
        let written = async {
            writer.write_all_buf(out).await?;
            writer.flush().await
        };
        match timeout(self.config.frame_timeout, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Broken),
            Err(_) => {
                self.metrics.frame_fault(&self.config.name, FrameFault::SlowReader);
                Err(End::Broken)
            }
        }
    }

    /// Counts what stood outside of frames, and says once what it looks like. True if the listener does not take it.
    fn count_noise(&mut self, at_end: bool) -> bool {
        for _ in 0..self.mllp.take_restarts() {
            self.metrics.frame_fault(&self.config.name, FrameFault::Restarted);
        }
        let bytes = self.mllp.take_noise_bytes();
        if bytes > 0 {
            self.metrics.noise(&self.config.name, bytes);
        }
        if let Some(sample) = self.mllp.take_sample(at_end) {
            self.tell(&sample);
        }
        !self.config.noise && self.mllp.has_skipped_text()
    }

    /// One line for a peer that frames wrongly: what came, what should have come, and what would take it.
    fn tell(&self, sample: &Sample) {
        let (fault, what) = match sample.looks() {
            Looks::Unframed => (Some(FrameFault::Unframed), "a message without framing; `tolerate: { unframed: on }` would take it".to_owned()),
            Looks::Framed(byte) => {
                let what = format!(
                    "a message behind the byte {byte:02X}; `tolerate: {{ framing: {byte:02X} / END }}` would take it, with the bytes that the peer ends a message with for END"
                );
                (Some(FrameFault::OtherFraming), what)
            }
            Looks::Tls => (Some(FrameFault::Tls), "the beginning of TLS, which this listener does not speak".to_owned()),
            Looks::Http => (Some(FrameFault::Http), "an HTTP request; this listener speaks MLLP".to_owned()),
            Looks::Blank | Looks::Unknown => (None, "no message that Kiln knows".to_owned()),
        };
        if let Some(fault) = fault {
            self.metrics.frame_fault(&self.config.name, fault);
        }
        let first_bytes = sample.masked();
        tracing::warn!(listener = %self.config.name, peer = %self.peer, first_bytes, expected = "0B",
            "skipped bytes outside of MLLP frames (0x0B payload 0x1C 0x0D): {what}. Letters and digits are not shown; further bytes of this connection are only counted");
    }

    fn say_if_only_the_end_is_missing(&self) {
        if self.lacks_end {
            self.metrics.frame_fault(&self.config.name, FrameFault::NoEnd);
            tracing::warn!(listener = %self.config.name, peer = %self.peer, expected = "1C 0D",
                "a message came whole but for the end of its frame; `tolerate: {{ no-end: on }}` would take it");
        }
    }
}
