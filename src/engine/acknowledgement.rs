//! The answer to a message. A positive one is made from a `Stored`, so that an AA before the fsync does not compile.

use crate::engine::pacts::Refusal;
use crate::exchange::{MessageId, Phi, Timestamp};
use crate::hl7v2::{AckCode, AckRequest, Condition, Conditions, Fault, Header, Location, acknowledge};
use crate::journal::{OwedRecord, Stored};
use crate::listener::Ack;
use jiff::tz::TimeZone;

/// Who Kiln says it is when the sender's header cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) application: String,
    pub(super) facility: String,
}

/// An acknowledgement, ready to be framed.
pub(super) struct Acknowledgement {
    code: AckCode,
    bytes: Vec<u8>,
}

impl Acknowledgement {
    /// AA: the message is on the disk. Its MSH-7 and MSH-10 come from the stored message, so that a duplicate gets the same bytes again.
    pub(super) fn accept(stored: &Stored, header: &Header) -> Self {
        let own = Own { application: String::new(), facility: String::new() };
        Self::make(AckCode::ApplicationAccept, stored.received(), &control_id(stored), Some(header), &[], &own)
    }

    /// AR: the message is kept as refused, and this says why.
    pub(super) fn refuse(stored: &Stored, header: Option<&Header>, fault: &Fault, own: &Own) -> Self {
        let fault = std::slice::from_ref(fault);
        Self::make(AckCode::ApplicationReject, stored.received(), &control_id(stored), header, fault, own)
    }

    /// AE or AR: the message is kept as refused, since it could not be mapped or delivered. Made from the journal's word, after its commit.
    pub(super) fn refuse_later(stored: &Stored, header: &Header, refusal: &Refusal) -> Self {
        let own = Own { application: String::new(), facility: String::new() };
        Self::make(refusal.code, stored.received(), &control_id(stored), Some(header), &refusal.faults, &own)
    }

    /// CA: the message is on the disk, and what comes of it is told later (enhanced mode).
    pub(super) fn commit(stored: &Stored, header: &Header) -> Self {
        let own = Own { application: String::new(), facility: String::new() };
        Self::make(AckCode::CommitAccept, stored.received(), &control_id(stored), Some(header), &[], &own)
    }

    /// CE or CR: the message is kept as refused, and this says why (enhanced mode).
    pub(super) fn commit_refusal(stored: &Stored, header: Option<&Header>, code: AckCode, faults: &[Fault], own: &Own) -> Self {
        Self::make(code, stored.received(), &control_id(stored), header, faults, own)
    }

    /// AA, AE or AR, after CA: what came of the message, made from the journal's word. The same bytes each time.
    pub(super) fn application(owed: &OwedRecord, header: &Header, refusal: Option<&Refusal>, accept: Condition) -> Self {
        let (code, faults) = refusal.map_or((AckCode::ApplicationAccept, [].as_slice()), |refusal| (refusal.code, refusal.faults.as_slice()));
        let id = Self::application_control_id(owed.message);
        let time = hl7_time(owed.decided.unwrap_or_default());
        let conditions = Some(Conditions { accept, application: Condition::Never });
        let request = AckRequest { header: Some(header), code, faults, time: &time, control_id: &id, application: "", facility: "", conditions };
        Self { code, bytes: acknowledge(&request) }
    }

    /// MSH-10 of a message's application acknowledgement in enhanced mode: `K1042A`.
    pub(super) fn application_control_id(message: MessageId) -> String {
        format!("K{}A", message.0)
    }

    /// The message whose application acknowledgement has this MSH-10.
    pub(super) fn message_of(control_id: &str) -> Option<MessageId> {
        control_id.strip_prefix('K')?.strip_suffix('A')?.parse().ok().map(MessageId)
    }

    /// AR 207, or in enhanced mode CE 207: nothing is kept, the sender must send it again (`when-full: nak`).
    pub(super) fn cannot_store(at: Timestamp, header: Option<&Header>, code: AckCode, own: &Own) -> Self {
        let fault = Fault::new(Location::default(), Fault::INTERNAL, "the message cannot be stored now; send it again later");
        Self::make(code, at, &format!("KT{}", at.0), header, &[fault], own)
    }

    fn make(code: AckCode, at: Timestamp, control_id: &str, header: Option<&Header>, faults: &[Fault], own: &Own) -> Self {
        let request =
            AckRequest { header, code, faults, time: &hl7_time(at), control_id, application: &own.application, facility: &own.facility, conditions: None };
        Self { code, bytes: acknowledge(&request) }
    }

    /// MSA-1.
    pub(super) fn ack_code(&self) -> AckCode {
        self.code
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What is handed to the listener.
    pub(super) fn into_ack(self) -> Ack {
        Ack { code: self.code, bytes: Phi::new(self.bytes.into()) }
    }
}

/// Our MSH-10: the journal's number of the message, at most 20 characters as ST had until 2.6.
fn control_id(stored: &Stored) -> String {
    format!("K{}", stored.id().0)
}

/// A time in UTC as HL7 writes it (DTM, chapter 2A): `20260309142501.123+0000`.
pub(super) fn hl7_time(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    let t = TimeZone::UTC.to_datetime(time);
    format!("{:04}{:02}{:02}{:02}{:02}{:02}.{:03}+0000", t.year(), t.month(), t.day(), t.hour(), t.minute(), t.second(), t.millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_hl7_has_them() {
        assert_eq!(hl7_time(Timestamp(1_773_066_301_123)), "20260309142501.123+0000");
        assert_eq!(hl7_time(Timestamp(0)), "19700101000000.000+0000");
    }
}
