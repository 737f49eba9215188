//! What a listener holds its messages to, over a real socket: the dictionary, profiles, and an ERR for each fault.

mod engine_site;

use engine_site::{Plan, adt};
use kiln::hl7v2::Validation;
use kiln::journal::Disposition;

async fn site(validation: Validation) -> engine_site::Site {
    let mut plan = Plan::new();
    plan.site.validate = Some(validation);
    plan.start().await
}

/// A message that 2.5.1 has nothing against.
fn conformant(control_id: &str) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HERE|20260309142501||ADT^A08^ADT_A01|{control_id}|P|2.5.1\rEVN||20260309142501\rPID|1||77^^^HOSP^MR||DOE^JOHN||19700101|M\rPV1|1|I\r"
    )
}

fn errors(ack: &str) -> Vec<&str> {
    ack.split('\r').filter(|line| line.starts_with("ERR")).collect()
}

#[tokio::test]
async fn every_fault_against_the_dictionary_is_told_with_its_place_and_code() {
    let site = site(Validation { dictionary: true, profiles: Vec::new() }).await;
    let mut peer = site.connect().await;
    peer.accepted(&conformant("C1")).await;
    let bad = conformant("C2").replace("|M\r", "|Q\r").replace("19700101", "yesterday").replace("EVN||20260309142501", "EVN||").replace("PV1|1|I\r", "");
    let ack = peer.ask(&bad).await;
    assert!(ack.contains("\rMSA|AE|C2"), "{}", ack.escape_debug());
    let expected = [
        "ERR||PV1^1|100^Segment sequence error^HL70357|E||||PV1 is required in ADT_A01 of 2.5.1, and missing",
        "ERR||EVN^1^2|101^Required field missing^HL70357|E||||EVN-2 (Recorded Date/Time) is required in EVN of 2.5.1, and empty",
        "ERR||PID^1^7|102^Data type error^HL70357|E||||PID-7 is a TS, a date, with or without a time, and its value is none",
    ];
    assert_eq!(errors(&ack), expected, "{}", ack.escape_debug());
    let messages = site.stored().await;
    assert!(matches!(&messages[1].disposition, Disposition::Refused { code: 100, text } if text.ends_with("; and 2 more")), "{:?}", messages[1].disposition);
    assert!(messages[1].deliveries.is_empty());
    assert!(site.counted("kiln_findings_total{kind=\"not-conformant\"} 1"), "{}", site.metrics.encode());
    // A message that was refused and is sent again is judged anew.
    assert!(peer.ask(&bad).await.contains("\rMSA|AE|C2"));
    // Codes and lengths.
    let ack = peer.ask(conformant("C3").replace("|P|", "|Z|").replace("|HOSP|", &format!("|{}|", "H".repeat(300)))).await;
    let told = errors(&ack);
    assert!(told.iter().any(|e| e.starts_with("ERR||MSH^1^11^^1|103^")), "{told:?}");
    assert!(told.iter().any(|e| e.starts_with("ERR||MSH^1^4") && e.contains("has 300 characters")), "{told:?}");
    assert!(!ack.contains("yesterday") && told.iter().all(|e| !e.contains("HHHH")), "no value is told");
    site.stop().await;
}

#[tokio::test]
async fn a_profile_says_what_one_sender_must_send() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = "profile: ward\nmessages: [ADT]\nrules:\n  PV1: R\n  NK1: { usage: X }\n  ZPI: { usage: O, max: 1 }\n  PID-3: { usage: R, max: 1 }\n  \
                   PID-3.5: { usage: R, codes: [MR, PI] }\n  PID-7: { usage: RE, length: 8 }\n  PID-8: { usage: R, table: \"0001\" }\n  \
                   PID-29: { usage: C, when: PID-30, in: [Y] }\n  EVN-4: X\n";
    std::fs::write(folder.path().join("ward.yaml"), profile).expect("a file");
    let text = "listeners: { adt: { mllp: 127.0.0.1:2575, validate: { profile: ward.yaml } } }\n";
    let options = kiln::site::SiteOptions { overrides: &[], secrets_needed: true, variable: &|_| None };
    let loaded = kiln::site::load("kiln.yaml", folder.path(), Some(text), &options);
    let faults: Vec<_> = loaded.diagnostics.iter().map(|d| d.message.clone()).collect();
    let read = loaded.site.unwrap_or_else(|| panic!("{faults:#?}"));
    assert_eq!(read.files, [folder.path().join("ward.yaml")], "a change of the profile is a change of the site");
    let site = site(read.listeners[0].validate.clone().expect("it is set")).await;
    let mut peer = site.connect().await;
    peer.accepted(&conformant("C1")).await;
    // The dictionary has nothing to say here, and other types are not meant.
    peer.accepted("MSH|^~\\&|A|B|C|D|2026||ORU^R01|C2|P|2.5\rNK1|1\r").await;
    for (n, (change, expected)) in [
        (("PV1|1|I\r", ""), vec!["PV1^1|100"]),
        (("PV1|1|I\r", "NK1|1\rPV1|1|I\rZPI|1\rZPI|2\r"), vec!["NK1^1|100", "ZPI^2|100"]),
        (("77^^^HOSP^MR", ""), vec!["PID^1^3|101"]),
        (("77^^^HOSP^MR", "77^^^HOSP^MR~88^^^HOSP"), vec!["PID^1^3^2|102", "PID^1^3^2^5|101"]),
        (("^MR|", "^SS|"), vec!["PID^1^3^1^5|103"]),
        (("19700101", "197001010000"), vec!["PID^1^7^1|104"]),
        (("|M\r", "|Q\r"), vec!["PID^1^8^1|103"]),
        (("|M\r", "|M||||||||||||||||||||||Y\r"), vec!["PID^1^29|101"]),
        (("|M\r", "|M|||||||||||||||||||||20260101|N\r"), vec!["PID^1^29|102"]),
        (("EVN||20260309142501", "EVN||20260309142501||01"), vec!["EVN^1^4|102"]),
    ]
    .into_iter()
    .enumerate()
    {
        let message = conformant(&format!("D{n}")).replace(change.0, change.1).replace("|2.5.1\r", "|2.7\r");
        let ack = peer.ask(&message).await;
        let told: Vec<String> = errors(&ack).iter().map(|e| e.trim_start_matches("ERR||").split('^').collect::<Vec<_>>().join("^")).collect();
        let places: Vec<String> = told.iter().map(|e| e.split_once('|').map(|(place, rest)| format!("{place}|{}", &rest[..3])).unwrap_or_default()).collect();
        assert_eq!(places, expected, "{change:?}: {}", ack.escape_debug());
    }
    site.stop().await;
}

#[tokio::test]
async fn a_profile_that_cannot_be_used_is_told_line_by_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = "messages: [ADT]\nrules:\n  PID-99: R\n  XYZ: R\n  PID-8: S\n  PID-3.99: R\n  PID-29: { usage: C }\n  PID-7: { lenght: 8 }\n  PID-30: { table: \"9999\" }\n";
    std::fs::write(folder.path().join("ward.yaml"), profile).expect("a file");
    let text = "listeners: { adt: { mllp: 127.0.0.1:2575, validate: { profile: [ward.yaml, none.yaml] } } }\n";
    let options = kiln::site::SiteOptions { overrides: &[], secrets_needed: true, variable: &|_| None };
    let loaded = kiln::site::load("kiln.yaml", folder.path(), Some(text), &options);
    assert!(loaded.site.is_none());
    let told: String = loaded.diagnostics.iter().map(|d| format!("{} {}\n", d.code, d.message)).collect();
    for says in [
        "K733 ward.yaml:1: the profile has no name",
        "K733 ward.yaml:3: `PID-99` is no field",
        "K733 ward.yaml:4: `XYZ` is no segment",
        "K733 ward.yaml:5: `PID-8` is one of R, RE, O, C, X",
        "K733 ward.yaml:6: `PID-3.99` is no component",
        "K733 ward.yaml:7: `PID-29` is conditional and says no condition",
        "K733 ward.yaml:8: `lenght` is not a key",
        "K733 ward.yaml:9: `rules.PID-30.table` is not a table of HL7",
        "none.yaml` cannot be read",
    ] {
        assert!(told.contains(says), "{says} is not in\n{told}");
    }
    drop(adt("", "", ""));
}
