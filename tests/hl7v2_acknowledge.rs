//! Acknowledgements in the shape of each version.

use bytes::Bytes;
use kiln::hl7v2::{AckCode, AckRequest, Fault, Header, Location, Message, ParseOptions, acknowledge};

fn ack(msh: Option<&str>, code: AckCode, faults: &[Fault]) -> String {
    let header = msh.map(|m| Header::read(m.as_bytes()).expect("the header is readable"));
    let request = AckRequest {
        header: header.as_ref(),
        code,
        faults,
        time: "20260309142501+0100",
        control_id: "K1",
        application: "KILN",
        facility: "HOSP",
        conditions: None,
    };
    let bytes = acknowledge(&request);
    Message::parse(Bytes::copy_from_slice(&bytes), &ParseOptions::default()).expect("an acknowledgement can be read");
    String::from_utf8(bytes).expect("these are ASCII")
}

fn fault(code: u16) -> Fault {
    Fault::new(Location { segment: "PID".into(), sequence: 1, field: 7, repetition: 1, component: 2, subcomponent: 0 }, code, "PID-7 is not a date & time")
}

fn msh(version: &str) -> String {
    format!("MSH|^~\\&|SND|SFAC|RCV|RFAC|20260309||ADT^A01^ADT_A01|C1|T|{version}\rPID|1\r")
}

#[test]
fn the_message_type_is_as_the_version_writes_it() {
    for (version, want) in [
        ("2.1", "ACK"),
        ("2.2", "ACK"),
        ("2.3", "ACK^A01"),
        ("2.3.1", "ACK^A01^ACK"),
        ("2.5.1", "ACK^A01^ACK"),
        ("2.9", "ACK^A01^ACK"),
        ("9.9", "ACK^A01^ACK"),
        ("2.4^DEU", "ACK^A01^ACK"),
    ] {
        let want = format!("MSH|^~\\&|RCV|RFAC|SND|SFAC|20260309142501+0100||{want}|K1|T|{version}\rMSA|AA|C1\r");
        assert_eq!(ack(Some(&msh(version)), AckCode::ApplicationAccept, &[fault(102)]), want);
    }
}

#[test]
fn before_2_5_faults_are_in_err_1_and_msa_3() {
    let found = ack(Some(&msh("2.4")), AckCode::ApplicationError, &[fault(104), fault(101)]);
    let want = "MSA|AE|C1|PID-7 is not a date \\T\\ time\rERR|PID^1^7^102&Data type error&HL70357~PID^1^7^101&Required field missing&HL70357\r";
    assert!(found.ends_with(want), "{found}");
}

#[test]
fn from_2_5_a_fault_is_a_segment_and_104_came_with_2_7() {
    let found = ack(Some(&msh("2.5")), AckCode::ApplicationError, &[fault(104)]);
    assert!(found.ends_with("MSA|AE|C1\rERR||PID^1^7^1^2|102^Data type error^HL70357|E||||PID-7 is not a date \\T\\ time\r"), "{found}");
    let found = ack(Some(&msh("2.7")), AckCode::CommitError, &[fault(104), fault(101)]);
    assert!(found.contains("MSA|CE|C1\rERR||PID^1^7^1^2|104^Value too long^HL70357|E|"), "{found}");
    assert_eq!(found.matches("\rERR|").count(), 2);
}

#[test]
fn the_senders_delimiters_character_set_and_odd_control_id_come_back() {
    let sent = "MSH#!@%*#SND#SFAC#R!1.2!ISO#RFAC###ORU!R01#a%F%b!x#P#2.5###AL#NE##8859/1\r";
    assert_eq!(
        ack(Some(sent), AckCode::ApplicationAccept, &[]),
        "MSH#!@%*#R!1.2!ISO#RFAC#SND#SFAC#20260309142501+0100##ACK!R01!ACK#K1#P#2.5######8859/1\rMSA#AA#a%F%b!x\r"
    );
    assert_eq!(
        ack(Some("MSH|^~|||||||ORU||P|\r"), AckCode::ApplicationReject, &[Fault::new(Location::field("MSH", 9), 200, "a|b^c")]),
        "MSH|^~|||||20260309142501+0100||ACK|K1|P|2.5\rMSA|AR\rERR||MSH^1^9|200^Unsupported message type^HL70357|E||||a b c\r"
    );
}

#[test]
fn without_a_readable_header_it_is_our_own() {
    let fault = Header::read(b"PID|1").expect_err("there is no MSH");
    assert_eq!(
        ack(None, AckCode::ApplicationReject, &[fault]),
        "MSH|^~\\&|KILN|HOSP|||20260309142501+0100||ACK|K1|P|2.5\rMSA|AR\r\
         ERR|||207^Application internal error^HL70357|E||||the message does not begin with a readable MSH segment\r"
    );
}
