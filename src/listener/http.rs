//! HL7 v2 over HTTP/1.1 (<https://hapifhir.github.io/hapi-hl7v2/hapi-hl7overhttp/specification.html>): a request is a message, the answer its
//! acknowledgement.

use crate::exchange::{Phi, Timestamp};
use crate::hl7v2::{AckCode, Charset};
use crate::listener::connection::{HEAD_BYTES, SMALL_BYTES};
use crate::listener::greet::Stream;
use crate::listener::guard::Unauthorized;
use crate::listener::mllp::Live;
use crate::listener::{HttpStatus, Intake, Kind, Opened, Peer, Received, Reply};
use crate::metrics::{FrameFault, Metrics};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1_024;
/// When a sender may come again after nothing could be stored, in seconds.
const COME_AGAIN: &str = "30";
/// How the media types of HL7 v2 in its own encoding are written: the specification's, its successor's, and what some senders make of it.
const TYPES: [&str; 3] = ["application/hl7-v2", "application/hl7-v2+er7", "x-application/hl7-v2+er7"];

/// What the requests of a connection share.
pub(super) struct Conversation<I> {
    pub(super) peer: SocketAddr,
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) intake: Arc<I>,
    pub(super) large: Arc<Semaphore>,
}

/// Serves the connection until its peer closes it, it is silent for too long, or `closing`; then a request that has begun is answered.
pub(super) async fn serve<I: Intake>(stream: Stream, talk: Conversation<I>, closing: CancellationToken) {
    let frame_timeout = talk.live.config().frame_timeout;
    let talk = Arc::new(talk);
    let service = service_fn(|request| {
        let talk = Arc::clone(&talk);
        async move { Ok::<_, Infallible>(talk.answer(request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(frame_timeout).max_buf_size(HEAD_BYTES_MAX).half_close(true);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        let config = talk.live.config();
        let fault = if error.is_timeout() { FrameFault::SlowFrame } else { FrameFault::BadRequest };
        // A peer that goes away between two requests, or with half of one, has no answer and knows it.
        if error.is_parse() || error.is_timeout() {
            talk.metrics.frame_fault(&config.name, fault);
            tracing::info!(listener = %config.name, peer = %talk.peer, fault = fault.word(), "closed a connection: no request of HTTP/1.1 came in time");
        }
    }
}

/// What a request is asked before it may send a message.
enum Refusal {
    Path,
    Method,
    Unauthorized(Unauthorized),
    MediaType(String),
    Encoding,
    Late,
    Broken,
}

impl<I: Intake> Conversation<I> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let config = self.live.config();
        match self.take(request, &config).await {
            Ok(response) => response,
            Err(refusal) => self.refuse(&config, refusal),
        }
    }

    async fn take(&self, request: Request<Incoming>, config: &Opened) -> Result<Response<Full<Bytes>>, Refusal> {
        let Kind::Http(http) = &config.kind else { return Err(Refusal::Path) };
        if http.path.as_deref().is_some_and(|path| path != request.uri().path()) {
            return Err(Refusal::Path);
        }
        if let Some(guard) = &config.guard {
            guard.check(request.headers()).await.map_err(Refusal::Unauthorized)?;
        }
        if request.method() != Method::POST {
            return Err(Refusal::Method);
        }
        let (media_type, charset) = media_type(&request)?;
        let (charset, charset_name) = charset.map_or((None, None), |(charset, name)| (Some(charset), Some(name)));
        if request.headers().get(CONTENT_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::Encoding);
        }
        if !self.intake.has_room() {
            return Ok(unavailable());
        }
        // A long message keeps its place until it is answered: so long it is in memory.
        let (body, oversize, _place) = self.body(request, config).await?;
        let received = Received {
            listener: Arc::clone(&config.name),
            peer: Peer::Socket(self.peer),
            received: Timestamp(jiff::Timestamp::now().as_millisecond()),
            bytes: Phi::new(body),
            oversize,
            back: None,
            charset,
            row: None,
        };
        Ok(match self.intake.take(received).await {
            Reply::Ack(ack) => {
                let bytes = ack.bytes.into_exposed();
                let status = if oversize { StatusCode::PAYLOAD_TOO_LARGE } else { status(ack.code, http.status) };
                let mut response = respond(status, &content_type(media_type, charset_name, &bytes), bytes);
                if oversize {
                    close(&mut response);
                }
                response
            }
            // The body held several messages: their acknowledgements follow each other as they did, and the worst makes the status.
            Reply::Acks(all) => {
                let code = all.iter().fold(AckCode::ApplicationAccept, |worst, ack| worst.worse(ack.code));
                let bytes: Bytes = all.iter().flat_map(|ack| ack.bytes.expose().iter().copied()).collect::<Vec<u8>>().into();
                respond(status(code, http.status), &content_type(media_type, charset_name, &bytes), bytes)
            }
            Reply::Silent => respond(StatusCode::NO_CONTENT, "", Bytes::new()),
            Reply::Close => unavailable(),
        })
    }

    /// The body, whether it is over the limit (then it is only its beginning), and its place among the long ones.
    async fn body(&self, request: Request<Incoming>, config: &Opened) -> Result<(Bytes, bool, Option<OwnedSemaphorePermit>), Refusal> {
        let mut deadline = Instant::now() + config.frame_timeout;
        let mut body = request.into_body();
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::with_capacity(announced.min(SMALL_BYTES));
        let mut place: Option<OwnedSemaphorePermit> = None;
        let too_long = |bytes: &[u8]| {
            self.metrics.frame_fault(&config.name, FrameFault::Oversize);
            tracing::warn!(listener = %config.name, peer = %self.peer, limit_bytes = config.frame_bytes_max, "a message is over the limit");
            (Bytes::copy_from_slice(bytes.get(..HEAD_BYTES).unwrap_or(bytes)), true, None)
        };
        loop {
            if place.is_none() && bytes.len() >= SMALL_BYTES {
                // No limit runs against a peer while it is Kiln that has no room.
                let waited = Instant::now();
                place = Some(Arc::clone(&self.large).acquire_owned().await.expect("the semaphore is never closed"));
                deadline += waited.elapsed();
            }
            let frame = match timeout_at(deadline, body.frame()).await {
                Ok(None) => return Ok((bytes.freeze(), false, place)),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(Refusal::Broken),
                Err(_) => return Err(Refusal::Late),
            };
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
            // Enough is read to say whose message it is, whatever was announced.
            if bytes.len() > config.frame_bytes_max || (announced > config.frame_bytes_max && bytes.len() >= HEAD_BYTES.min(announced)) {
                return Ok(too_long(&bytes));
            }
        }
    }

    fn refuse(&self, config: &Opened, refusal: Refusal) -> Response<Full<Bytes>> {
        let (fault, status, why) = match &refusal {
            Refusal::Path => (FrameFault::BadRequest, StatusCode::NOT_FOUND, "no messages are taken at this path".to_owned()),
            Refusal::Method => (FrameFault::BadRequest, StatusCode::METHOD_NOT_ALLOWED, "send the message by POST".to_owned()),
            Refusal::Unauthorized(unauthorized) => (FrameFault::Unauthorized, StatusCode::UNAUTHORIZED, unauthorized.why().to_owned()),
            Refusal::MediaType(why) => (FrameFault::BadRequest, StatusCode::UNSUPPORTED_MEDIA_TYPE, why.clone()),
            Refusal::Encoding => {
                (FrameFault::BadRequest, StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed messages are not taken: leave out Content-Encoding".to_owned())
            }
            Refusal::Late => (FrameFault::SlowFrame, StatusCode::REQUEST_TIMEOUT, "the message took too long".to_owned()),
            Refusal::Broken => (FrameFault::Truncated, StatusCode::BAD_REQUEST, "the message did not come to its end".to_owned()),
        };
        self.metrics.frame_fault(&config.name, fault);
        tracing::warn!(listener = %config.name, peer = %self.peer, fault = fault.word(), status = status.as_u16(), "refused a request");
        let mut response = respond(status, "text/plain; charset=utf-8", format!("{why}\n").into());
        match refusal {
            Refusal::Method => set(&mut response, ALLOW, "POST"),
            Refusal::Unauthorized(unauthorized) => set(&mut response, WWW_AUTHENTICATE, unauthorized.challenge()),
            _ => {}
        }
        // The rest of what it sends is not read.
        close(&mut response);
        response
    }
}

/// The media type as the request writes it, and the character set that it names.
fn media_type(request: &Request<Incoming>) -> Result<(&'static str, Option<(Charset, String)>), Refusal> {
    let told = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = told.split(';');
    let name = parts.next().unwrap_or_default().trim();
    let Some(known) = TYPES.iter().find(|known| known.eq_ignore_ascii_case(name)) else {
        let why = "say `Content-Type: application/hl7-v2; charset=utf-8`; messages are taken in HL7's own encoding (ER7), not as XML";
        return Err(Refusal::MediaType(why.to_owned()));
    };
    let parameter = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let Some(name) = parameter.map(|(_, value)| value.trim().trim_matches('"')) else { return Ok((known, None)) };
    match Charset::named(name) {
        Some(charset) => Ok((known, Some((charset, name.to_owned())))),
        // The bytes tell whether they are, and in which order they come.
        None if Charset::is_wide_name(name) => Ok((known, None)),
        None => Err(Refusal::MediaType("this `charset` is not known here; utf-8 always is".to_owned())),
    }
}

/// The status that goes with an acknowledgement (section 1.3 of the specification).
fn status(code: AckCode, by: HttpStatus) -> StatusCode {
    match (by, code) {
        (HttpStatus::Ok, _) | (_, AckCode::ApplicationAccept | AckCode::CommitAccept) => StatusCode::OK,
        (_, AckCode::ApplicationReject | AckCode::CommitReject) => StatusCode::BAD_REQUEST,
        (_, AckCode::ApplicationError | AckCode::CommitError) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer is in the request's character set; without one, in the message's own, which may have no name on the internet.
fn content_type(media_type: &str, charset: Option<String>, answer: &[u8]) -> String {
    if let Some(told) = Charset::told_by(answer) {
        return format!("{media_type}; charset={}", told.http_name());
    }
    let is_utf8 = std::str::from_utf8(answer).is_ok();
    let name = charset.unwrap_or_else(|| "utf-8".to_owned());
    // What was not even in the set that its request names comes back as it was.
    let name = Some(name).filter(|name| is_utf8 || !name.eq_ignore_ascii_case("utf-8"));
    name.map_or_else(|| media_type.to_owned(), |name| format!("{media_type}; charset={name}"))
}

fn unavailable() -> Response<Full<Bytes>> {
    let why = "the message could not be stored, or was not delivered in time: send it again\n";
    let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", Bytes::from_static(why.as_bytes()));
    set(&mut response, RETRY_AFTER, COME_AGAIN);
    close(&mut response);
    response
}

fn respond(status: StatusCode, content_type: &str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if !content_type.is_empty() {
        set(&mut response, CONTENT_TYPE, content_type);
    }
    response
}

fn close(response: &mut Response<Full<Bytes>>) {
    set(response, CONNECTION, "close");
}

fn set(response: &mut Response<Full<Bytes>>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
