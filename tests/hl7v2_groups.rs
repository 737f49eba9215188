//! Segments in their groups, drawn as an outline: a group's name, then its segments, indented below it.
//! A segment that the structure does not foresee there is marked `?`.

use bytes::Bytes;
use kiln::hl7v2::{Message, ParseOptions, Structure};

fn place(msh9: &str, version: &str, segments: &str, extra: &[(&str, &str)]) -> String {
    let body: String = segments.split_whitespace().map(|name| format!("{name}|1\r")).collect();
    let sent = format!("MSH|^~\\&|A|B|C|D|||{msh9}|1|P|{version}\r{body}");
    let message = Message::parse(Bytes::from(sent), &ParseOptions::default()).expect("the message is readable");
    let structure = message.structure().expect("the structure is known");
    outline(&message, structure, extra)
}

fn outline(message: &Message, structure: Structure, extra: &[(&str, &str)]) -> String {
    let placement = message.place(structure, extra);
    assert_eq!(placement.segments.len(), message.segment_count());
    let depth = |mut group: u32| {
        let mut depth = 0;
        while let Some(parent) = placement.groups[group as usize].parent {
            (group, depth) = (parent, depth + 1);
        }
        depth
    };
    let (mut out, mut shown, mut line_group) = (String::new(), 1, None);
    for (n, segment) in placement.segments.iter().enumerate() {
        while shown < placement.groups.len() && placement.groups[shown].first as usize == n {
            let group = u32::try_from(shown).expect("few groups");
            let instance = placement.groups[shown];
            assert!(instance.first < instance.end && instance.parent.is_some_and(|p| placement.groups[p as usize].end >= instance.end));
            out.push_str(&format!("\n{}{}", "  ".repeat(depth(group) - 1), structure.node(instance.node).name));
            line_group = Some(group);
            shown += 1;
        }
        if line_group != Some(segment.group) {
            out.push_str(&format!("\n{}^", "  ".repeat(depth(segment.group).saturating_sub(1))));
            line_group = Some(segment.group);
        }
        out.push_str(&format!(" {}{}", message.segment_name(n), if segment.node.is_none() { "?" } else { "" }));
    }
    out.replace("\n^ MSH", "MSH")
}

#[track_caller]
fn check(found: String, want: &str) {
    let want = want.trim_matches('\n').lines().map(|l| l.strip_prefix("        ").unwrap_or(l)).collect::<Vec<_>>().join("\n");
    assert_eq!(found.trim_start(), want.trim_end(), "\n{found}\n");
}

/// An ORC could also begin a prior result, whose PID is optional: it is the next order, unless that PID came.
#[test]
fn an_order_behind_an_order_is_no_prior_result() {
    check(
        place("OML^O21^OML_O21", "2.5.1", "PID ORC TQ1 OBR OBX ORC OBR PID ORC OBR OBX", &[]),
        "
        MSH
        PATIENT PID
        ORDER ORC
          TIMING TQ1
          OBSERVATION_REQUEST OBR
            OBSERVATION OBX
        ORDER ORC
          OBSERVATION_REQUEST OBR
            PRIOR_RESULT
              PATIENT_PRIOR PID
              ORDER_PRIOR ORC OBR
                OBSERVATION_PRIOR OBX",
    );
    check(
        place("OML^O33^OML_O33", "2.5.1", "PID SPM ORC OBR ORC OBR SPM ORC OBR", &[]),
        "
        MSH
        PATIENT PID
        SPECIMEN SPM
          ORDER ORC
            OBSERVATION_REQUEST OBR
          ORDER ORC
            OBSERVATION_REQUEST OBR
        SPECIMEN SPM
          ORDER ORC
            OBSERVATION_REQUEST OBR",
    );
}

#[test]
fn a_report_with_two_orders() {
    check(
        place("ORU^R01", "2.5.1", "PID NTE PV1 ORC OBR NTE OBX NTE OBX OBX SPM OBX OBR OBX NTE", &[]),
        "
        MSH
        PATIENT_RESULT
          PATIENT PID NTE
            VISIT PV1
          ORDER_OBSERVATION ORC OBR NTE
            OBSERVATION OBX NTE
            OBSERVATION OBX
            OBSERVATION OBX
            SPECIMEN SPM OBX
          ORDER_OBSERVATION OBR
            OBSERVATION OBX NTE
        ",
    );
}

#[test]
fn a_report_whose_patient_or_order_is_missing() {
    check(
        place("ORU^R01", "2.3", "OBX OBX OBR OBX", &[]),
        "
        MSH
        RESPONSE
          ORDER_OBSERVATION
            OBSERVATION OBX
            OBSERVATION OBX
          ORDER_OBSERVATION OBR
            OBSERVATION OBX
        ",
    );
}

#[test]
fn two_patients_in_a_report() {
    check(
        place("ORU^R01", "2.5", "PID OBR OBX PID OBR OBX", &[]),
        "
        MSH
        PATIENT_RESULT
          PATIENT PID
          ORDER_OBSERVATION OBR
            OBSERVATION OBX
        PATIENT_RESULT
          PATIENT PID
          ORDER_OBSERVATION OBR
            OBSERVATION OBX
        ",
    );
}

#[test]
fn an_appointment_with_its_resources() {
    check(
        place("SIU^S12", "2.5", "SCH NTE PID PV1 RGS AIS NTE AIG AIL AIP AIP RGS AIL", &[]),
        "
        MSH SCH NTE
        PATIENT PID PV1
        RESOURCES RGS
          SERVICE AIS NTE
          GENERAL_RESOURCE AIG
          LOCATION_RESOURCE AIL
          PERSONNEL_RESOURCE AIP
          PERSONNEL_RESOURCE AIP
        RESOURCES RGS
          LOCATION_RESOURCE AIL
        ",
    );
}

#[test]
fn an_appointment_without_rgs_and_out_of_order() {
    check(
        place("SIU^S12", "2.5", "SCH PID AIP AIL AIS AIG", &[]),
        "
        MSH SCH
        PATIENT PID
        RESOURCES
          PERSONNEL_RESOURCE AIP
          LOCATION_RESOURCE AIL
          SERVICE AIS
          GENERAL_RESOURCE AIG
        ",
    );
}

#[test]
fn orders_of_2_3_with_and_without_orc() {
    check(
        place("ORM^O01", "2.3", "PID PV1 IN1 GT1 AL1 ORC OBR NTE DG1 OBX NTE ORC OBR OBR", &[]),
        "
        MSH
        PATIENT PID
          PATIENT_VISIT PV1
          INSURANCE IN1
        ^ GT1 AL1
        ORDER ORC
          ORDER_DETAIL
            CHOICE OBR
          ^ NTE DG1
            OBSERVATION OBX NTE
        ORDER ORC
          ORDER_DETAIL
            CHOICE OBR
        ORDER
          ORDER_DETAIL
            CHOICE OBR
        ",
    );
}

#[test]
fn an_admission_with_procedures_and_insurance() {
    check(
        place("ADT^A01", "2.5", "EVN PID ROL NK1 NK1 PV1 ROL OBX DG1 PR1 ROL PR1 GT1 IN1 IN2 ROL IN1 ACC", &[]),
        "
        MSH EVN PID ROL NK1 NK1 PV1 ROL OBX DG1
        PROCEDURE PR1 ROL
        PROCEDURE PR1
        ^ GT1
        INSURANCE IN1 IN2 ROL
        INSURANCE IN1
        ^ ACC
        ",
    );
}

#[test]
fn an_admission_out_of_order_keeps_what_belongs_to_the_patient_there() {
    check(
        place("ADT^A01", "2.5", "PID PV2 PV1 NK1 IN1 DG1 AL1 IN1 PD1 EVN", &[]),
        "
        MSH PID PV2 PV1 NK1
        INSURANCE IN1
        ^ DG1 AL1
        INSURANCE IN1
        ^ PD1 EVN
        ",
    );
}

#[test]
fn unforeseen_segments_stay_with_the_segment_before_and_declared_ones_with_what_they_follow() {
    check(
        place("ADT^A01", "2.5", "PID ZPI PR1 ZPR IN1 IN2 ZIN CSP ZPI MSH PID", &[]),
        "
        MSH PID ZPI?
        PROCEDURE PR1 ZPR?
        INSURANCE IN1 IN2 ZIN? CSP? ZPI? MSH? PID?
        ",
    );
    check(
        place("ORU^R01", "2.5", "PID ZPI OBR OBX ZBX OBX ZPI ZBX zor", &[("ZPI", "PID"), ("ZBX", "OBX"), ("ZOR", "OBR")]),
        "
        MSH
        PATIENT_RESULT
          PATIENT PID ZPI?
          ORDER_OBSERVATION OBR
            OBSERVATION OBX ZBX?
            OBSERVATION OBX
          ^ ZPI?
            ^ ZBX?
          ^ zor?
        ",
    );
}

#[test]
fn the_same_segment_at_two_places_is_told_apart_by_its_node() {
    let sent = "MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.5\rPID|1\rROL|1\rPV1|1\rROL|2\r";
    let message = Message::parse(Bytes::from(sent), &ParseOptions::default()).expect("the message is readable");
    let placement = message.place(message.structure().expect("known"), &[]);
    assert!(placement.segments[2].node < placement.segments[4].node && placement.segments[2].node.is_some());
}

#[test]
fn a_long_report_takes_linear_time() {
    let time = |observations: usize| {
        let sent = format!("MSH|^~\\&|A|B|C|D|||ORU^R01|1|P|2.5\rPID|1\rOBR|1\r{}", "OBX|1\rNTE|1\rZZZ|1\rAL1|1\r".repeat(observations));
        let message = Message::parse(Bytes::from(sent), &ParseOptions::default()).expect("the message is readable");
        let structure = message.structure().expect("known");
        let start = std::time::Instant::now();
        let placement = message.place(structure, &[("ZZZ", "OBX")]);
        assert_eq!(placement.groups.len(), observations + 4);
        start.elapsed().as_secs_f64()
    };
    let (short, long) = (time(1_000).max(1e-4), time(20_000));
    assert!(long < short * 200.0, "20 times the segments took {} times as long", long / short);
}
