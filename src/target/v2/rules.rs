//! What an acknowledgement means for a delivery (HL7 chapter 2, section 2.9): which one ends it, which is tried again, and which gives it up.

use crate::hl7v2::{AckCode, Answer, Conditions, Draft, Header, fault_words};
use crate::target::{Expect, Fault, Retry, Setback};
use std::time::Duration;

pub(crate) struct Rules {
    pub(crate) expect: Expect,
    pub(crate) application_wait: Duration,
    pub(crate) retry_on: Vec<String>,
    /// Application acknowledgements come to a listener.
    pub(crate) replies: bool,
}

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// MSH-10 as text.
    pub(crate) control_id: String,
    /// MSH-15 or MSH-16 say something: enhanced mode.
    pub(crate) enhanced: bool,
    /// The receiver answers when it has the message (AL, SU); in original mode, with its one acknowledgement.
    pub(crate) accept: bool,
    /// The application's word is waited for.
    pub(crate) application: bool,
}

/// What an acknowledgement of this very message says.
pub(crate) enum Meaning {
    /// The delivery is done.
    Done(String),
    /// Accepted; the application acknowledgement is to come.
    Accepted(String),
    /// Not accepted, or not to be understood.
    Refused(Box<Setback>),
}

impl Rules {
    /// Reads what the message asks for. A message that could never be called delivered is refused before it is sent.
    pub(crate) fn read(&self, draft: &Draft) -> Result<Asked, Setback> {
        let header = Header::read(&draft.bytes).map_err(|_| {
            let summary = "the message that is made has no MSH that could be read";
            Setback::plain(Retry::Permanent, Fault::Message, "unreadable", summary)
        })?;
        let control_id = header.text(10).trim().to_owned();
        if control_id.is_empty() {
            let summary = "MSH-10 is empty: no acknowledgement could be told to be this message's; give it one in the route, `MSH-10: ...`";
            return Err(Setback::plain(Retry::Permanent, Fault::Message, "no-control-id", summary));
        }
        let sent = Conditions::of(&header);
        let enhanced = sent.is_some();
        // ER asks for bad news only, NE for none: silence would have to count as success, and a lost message looks the same.
        let (accept, application) = sent.map_or((false, false), |sent| (sent.accept.asks(true), sent.application.asks(true)));
        let asked = match self.expect {
            Expect::AsAsked if !enhanced => Asked { control_id, enhanced, accept: true, application: false },
            Expect::AsAsked => Asked { control_id, enhanced, accept, application },
            Expect::Accept => Asked { control_id, enhanced, accept: true, application: false },
            Expect::Application => Asked { control_id, enhanced, accept: !enhanced || accept, application: true },
        };
        if !asked.accept && !asked.application {
            let summary = "MSH-15 and MSH-16 ask for no positive acknowledgement, so that nobody could say whether the message has arrived: \
                set `MSH-15: \"AL\"` or `MSH-16: \"AL\"` in the route, or `expect: accept` at the target if its receiver answers all the same";
            return Err(Setback::plain(Retry::Permanent, Fault::Message, "asks-no-answer", summary));
        }
        Ok(asked)
    }

    /// The first acknowledgement.
    pub(crate) fn first(&self, answer: &Answer, asked: &Asked) -> Meaning {
        match answer.ack_code() {
            Some(AckCode::CommitAccept) if asked.application => Meaning::Accepted(answer.code.clone()),
            Some(code) if code.is_positive() => Meaning::Done(answer.code.clone()),
            code => Meaning::Refused(Box::new(self.negative(code, answer))),
        }
    }

    /// The application acknowledgement of a message that was accepted.
    pub(crate) fn application(&self, answer: &Answer) -> Meaning {
        match answer.ack_code() {
            Some(AckCode::CommitAccept) => Meaning::Accepted(answer.code.clone()),
            Some(AckCode::ApplicationAccept) => Meaning::Done(answer.code.clone()),
            code => Meaning::Refused(Box::new(self.negative(code, answer))),
        }
    }

    fn negative(&self, code: Option<AckCode>, answer: &Answer) -> Setback {
        let (word, name) = match code {
            Some(AckCode::ApplicationError) => ("ack-ae", "AE"),
            Some(AckCode::ApplicationReject) => ("ack-ar", "AR"),
            Some(AckCode::CommitError) => ("ack-ce", "CE"),
            Some(AckCode::CommitReject) => ("ack-cr", "CR"),
            Some(AckCode::ApplicationAccept | AckCode::CommitAccept) | None => {
                let summary = "the acknowledgement of this message has no code of HL7 table 0008 in MSA-1: whether it was accepted is not known";
                return Setback::plain(Retry::Ambiguous, Fault::Target, "ack-code", summary);
            }
        };
        // Only codes of HL7's own table are repeated: anything else may quote the patient.
        let codes: Vec<(u16, &str)> = answer.errors.iter().filter_map(|e| e.code.trim().parse().ok()).filter_map(|n| Some((n, fault_words(n)?))).collect();
        let mut summary = format!("the receiver answered {name}");
        if let Some((n, words)) = codes.first() {
            summary.push_str(&format!(" ({n}, {words})"));
        }
        let tried_again = |code: &str| self.retry_on.iter().any(|listed| listed == code);
        if !tried_again(name) && !codes.iter().any(|(n, _)| tried_again(&n.to_string())) {
            return Setback::plain(Retry::Permanent, Fault::Message, word, summary);
        }
        // That it cannot store anything, or is broken, would meet the next message just so.
        let everybody = matches!(code, Some(AckCode::CommitError | AckCode::CommitReject)) || codes.iter().any(|(n, _)| *n == 207);
        Setback::plain(Retry::Transient, if everybody { Fault::Target } else { Fault::Declined }, word, summary)
    }
}

/// What came instead of an application acknowledgement.
pub(crate) enum NoWord {
    /// Nothing, within this time.
    Late(Duration),
    /// The end of the connection on which it was to come.
    Lost,
    /// Something that is no acknowledgement.
    Garbage,
}

/// The application acknowledgement did not come. Where the receiver has said that it has the message, a person decides: it is not sent again by itself,
/// since that could be twice.
pub(crate) fn no_application_acknowledgement(instead: &NoWord, accepted: bool) -> Setback {
    const CODE: &str = "no-application-acknowledgement";
    let what = match instead {
        NoWord::Late(wait) => format!("no application acknowledgement came within {wait:?}"),
        NoWord::Lost => "the connection ended before the application acknowledgement came".to_owned(),
        NoWord::Garbage => "what came then is no acknowledgement".to_owned(),
    };
    if accepted {
        let summary = format!("the receiver accepted the message (CA), but {what}: ask its operator; `kiln journal replay` sends it again");
        return Setback::plain(Retry::Permanent, Fault::Message, CODE, summary);
    }
    Setback::plain(Retry::Ambiguous, Fault::Target, CODE, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(expect: Expect) -> Rules {
        let retry_on = crate::target::RETRY_ON.map(str::to_owned).to_vec();
        Rules { expect, application_wait: Duration::from_secs(1), retry_on, replies: false }
    }

    fn read(expect: Expect, accept: &str, application: &str) -> Result<(bool, bool, bool), &'static str> {
        let bytes = format!("MSH|^~\\&|A|B|C|D|20260101||ADT^A01|7|P|2.5|||{accept}|{application}\rPID|1\r").into_bytes();
        let asked = rules(expect).read(&Draft { place: String::new(), bytes, charset: crate::hl7v2::Charset::UTF_8 }).map_err(|s| s.code)?;
        Ok((asked.enhanced, asked.accept, asked.application))
    }

    #[test]
    fn every_combination_of_msh_15_and_16_has_its_end() {
        for accept in ["AL", "SU", "ER", "NE", ""] {
            for application in ["AL", "SU", "ER", "NE", ""] {
                let told = |c: &str| matches!(c, "AL" | "SU");
                let expected = match (accept, application) {
                    ("", "") => Ok((false, true, false)),
                    _ if !told(accept) && !told(application) => Err("asks-no-answer"),
                    _ => Ok((true, told(accept), told(application))),
                };
                assert_eq!(read(Expect::AsAsked, accept, application), expected, "{accept}/{application}");
                assert_eq!(read(Expect::Accept, accept, application).map(|(_, accept, application)| (accept, application)), Ok((true, false)));
                let (enhanced, accepted, awaited) = read(Expect::Application, accept, application).expect("always");
                assert_eq!((accepted, awaited), (!enhanced || told(accept), true), "{accept}/{application}");
            }
        }
    }

    #[test]
    fn codes_have_their_classes() {
        let answer = |code: &str, errors: &[&str]| {
            let errors: String = errors.iter().map(|e| format!("ERR|||{e}^x^HL70357|E\r")).collect();
            Answer::read(format!("MSH|^~\\&|R\rMSA|{code}|7\r{errors}").as_bytes()).expect("an MSA")
        };
        let asked = |application| Asked { control_id: "7".into(), enhanced: application, accept: true, application };
        let class = |code: &str, errors: &[&str], application: bool| match rules(Expect::AsAsked).first(&answer(code, errors), &asked(application)) {
            Meaning::Done(_) => "done".to_owned(),
            Meaning::Accepted(_) => "accepted".to_owned(),
            Meaning::Refused(s) => format!("{} {:?} {:?}", s.code, s.retry, s.fault),
        };
        assert_eq!(class("AA", &[], false), "done");
        assert_eq!(class("CA", &[], false), "done");
        assert_eq!(class("CA", &[], true), "accepted");
        assert_eq!(class("AA", &[], true), "done", "an application that answers at once");
        assert_eq!(class("AE", &["101"], false), "ack-ae Permanent Message");
        assert_eq!(class("AR", &[], false), "ack-ar Permanent Message");
        assert_eq!(class("CR", &["200"], true), "ack-cr Permanent Message");
        assert_eq!(class("CE", &[], true), "ack-ce Transient Target");
        assert_eq!(class("AE", &["206"], false), "ack-ae Transient Declined");
        assert_eq!(class("AR", &["207"], false), "ack-ar Transient Target");
        for garbage in ["", "aa", "OK", "AAA"] {
            assert_eq!(class(garbage, &[], false), "ack-code Ambiguous Target", "{garbage}");
        }
    }
}
