//! A receiver of HL7 v2, over MLLP or HTTP: sends the messages of a delivery one after the other, and believes nothing but its acknowledgement.
//!
//! Never calls a message sent because it was written: only a positive acknowledgement of its own control ID says so.

mod connection;
mod http;
mod mllp;
mod rules;

pub use connection::{Heard, MllpConnection, MllpPeer, NoConnection, Silence, is_host_and_port};
pub use http::HttpSender;

use crate::exchange::Phi;
use crate::hl7v2::{Answer, Draft};
use crate::target::fhir::pace::Pace;
use crate::target::{Fault, Job, Receipt, Retry, Sent, Setback, Stage, TargetError, V2Config, V2Way};
use rules::{Asked, Meaning, NoWord, Rules};
use std::time::Duration;

/// A receiver of HL7 v2.
pub struct V2Target {
    way: Way,
    rules: Rules,
    pace: Option<Pace>,
}

enum Way {
    Mllp(mllp::Pool),
    Http(Box<HttpSender>),
}

/// What came of one message.
pub(crate) enum Ended {
    /// A positive acknowledgement that ends the delivery, by its code.
    Done(String),
    /// The receiver has taken the message (with this code, if it was to say so), and its application acknowledgement comes another way.
    Awaited(String),
}

impl V2Target {
    /// Checks settings and reads certificates; connects to nothing.
    pub fn open(config: V2Config) -> Result<Self, TargetError> {
        let rules = Rules { expect: config.expect, application_wait: config.application_wait, retry_on: config.retry_on, replies: config.replies };
        let way = match config.way {
            V2Way::Mllp(mllp) => Way::Mllp(mllp::Pool::open(&mllp).map_err(TargetError::Setting)?),
            V2Way::Http(http) => Way::Http(Box::new(HttpSender::open(&http)?)),
        };
        Ok(Self { way, rules, pace: config.rate.map(Pace::new) })
    }

    /// One attempt at a delivery: its messages in order, without those that the receiver has.
    pub async fn deliver(&self, job: &Job<'_>) -> Result<Receipt, Setback> {
        let mut sent = Vec::new();
        let mut messages = Vec::new();
        for (n, draft) in job.drafts.iter().enumerate() {
            let asked = self.rules.read(draft);
            // Of another message in this place nothing is known.
            let same = |sent: &&Sent| sent.draft == n && asked.as_ref().is_ok_and(|asked| asked.control_id == sent.control_id);
            let before = job.sent.iter().rfind(same);
            if let Some(done) = before.filter(|sent| sent.stage == Stage::Done) {
                messages.push(format!("{} {}", done.code, done.control_id));
                continue;
            }
            let now = |control_id: &str, code: &str, stage| Sent { draft: n, control_id: control_id.to_owned(), code: code.to_owned(), stage };
            let failed = |mut setback: Setback, last: Option<Sent>, mut sent: Vec<Sent>| {
                sent.extend(last);
                setback.sent = sent;
                Err(setback)
            };
            let asked = match asked {
                Ok(asked) => asked,
                Err(setback) => return failed(setback, None, sent),
            };
            let ended = match before.map(|sent| (sent, sent.stage)) {
                Some((before, Stage::Awaited(until))) => self.awaited(before, until, job.answers),
                _ => self.send(draft, &asked).await.map_err(|setback| (setback, None)),
            };
            match ended {
                Ok(Ended::Done(code)) => {
                    messages.push(format!("{code} {}", asked.control_id));
                    sent.push(now(&asked.control_id, &code, Stage::Done));
                }
                Ok(Ended::Awaited(code)) => {
                    let wait = self.rules.application_wait;
                    let until = now_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
                    return failed(still_awaited(wait), Some(now(&asked.control_id, &code, Stage::Awaited(until))), sent);
                }
                Err((setback, stage)) => return failed(setback, stage.map(|stage| now(&asked.control_id, "", stage)), sent),
            }
        }
        Ok(Receipt { messages, ..Receipt::default() })
    }

    /// Asks whether somebody takes connections there.
    pub async fn probe(&self) -> Result<(), Setback> {
        match &self.way {
            Way::Mllp(pool) => pool.probe().await,
            Way::Http(_) => Ok(()),
        }
    }

    async fn send(&self, draft: &Draft, asked: &Asked) -> Result<Ended, Setback> {
        if let Some(pace) = &self.pace {
            pace.turn().await;
        }
        match &self.way {
            Way::Mllp(pool) => pool.send(draft, asked, &self.rules).await,
            Way::Http(http) => http.send(draft, asked, &self.rules).await,
        }
    }

    /// A message that the receiver has taken: its application acknowledgement, if it has come.
    fn awaited(&self, before: &Sent, until: i64, answers: &[Answer]) -> Result<Ended, (Setback, Option<Stage>)> {
        for answer in answers.iter().filter(|answer| answer.answers(before.control_id.as_bytes())) {
            match self.rules.application(answer) {
                Meaning::Done(code) => return Ok(Ended::Done(code)),
                // An accept acknowledgement that came late, or twice.
                Meaning::Accepted(_) => {}
                Meaning::Refused(setback) => return Err((*setback, Some(Stage::Open))),
            }
        }
        let left = until.saturating_sub(now_ms());
        if left > 0 {
            return Err((still_awaited(Duration::from_millis(u64::try_from(left).unwrap_or(0))), None));
        }
        Err((rules::no_application_acknowledgement(&NoWord::Late(self.rules.application_wait), !before.code.is_empty()), Some(Stage::Open)))
    }
}

fn still_awaited(wait: Duration) -> Setback {
    let summary = "the receiver has the message; its application acknowledgement is awaited";
    Setback { retry_after: Some(wait), ..Setback::plain(Retry::Transient, Fault::Awaited, "awaits-acknowledgement", summary) }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Setback {
    /// Keeps what the receiver said: for the journal and the screen.
    fn with_answer(mut self, bytes: &[u8]) -> Self {
        const DETAIL_BYTES_MAX: usize = 64 * 1024;
        let text = String::from_utf8_lossy(bytes.get(..DETAIL_BYTES_MAX).unwrap_or(bytes)).into_owned();
        self.detail = Some(Phi::new(text));
        self
    }
}
