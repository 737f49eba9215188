//! Why a message was refused, as the journal keeps it until its sender is told: codes, places and sentences without patient data, as JSON.

use crate::engine::pacts::Refusal;
use crate::engine::refusal;
use crate::hl7v2::{AckCode, Fault, Location};
use serde_json::{Value, json};

/// `{ "code": "AE", "faults": [{ "at": ["PID", 1, 5, 1, 1, 0], "code": 102, "text": "..." }] }`.
pub(super) fn write(refusal: &Refusal) -> String {
    let place = |l: &Location| json!([l.segment, l.sequence, l.field, l.repetition, l.component, l.subcomponent]);
    let faults: Vec<_> = refusal.faults.iter().map(|f| json!({ "at": place(&f.location), "code": f.code, "text": f.text })).collect();
    json!({ "code": refusal.code.name(), "faults": faults }).to_string()
}

/// What [`write`] wrote. Of anything else only that it cannot be done.
pub(super) fn read(text: Option<&str>) -> Refusal {
    let unknown = || refusal::of_words("the message could not be delivered", true);
    let Some(value) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return unknown() };
    let code = value.get("code").and_then(Value::as_str).and_then(AckCode::named);
    let faults: Vec<Fault> = value.get("faults").and_then(Value::as_array).into_iter().flatten().filter_map(fault).collect();
    match code {
        Some(code) if !faults.is_empty() => Refusal { code, faults },
        _ => unknown(),
    }
}

fn fault(value: &Value) -> Option<Fault> {
    let at = value.get("at")?.as_array()?;
    let number = |n: usize| at.get(n).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let location = Location {
        segment: at.first().and_then(Value::as_str).unwrap_or_default().to_owned(),
        sequence: number(1),
        field: number(2),
        repetition: number(3),
        component: number(4),
        subcomponent: number(5),
    };
    let code = u16::try_from(value.get("code")?.as_u64()?).ok()?;
    Some(Fault::new(location, code, value.get("text")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_an_internal_error() {
        let place = Location { segment: "PID".into(), sequence: 2, field: 5, repetition: 3, component: 1, subcomponent: 4 };
        let refusal = Refusal { code: AckCode::ApplicationError, faults: vec![Fault::new(place, 102, "the server refuses Patient.name (value)")] };
        let found = read(Some(&write(&refusal)));
        assert_eq!((found.code, &found.faults), (refusal.code, &refusal.faults));
        for text in [None, Some("{}"), Some("{"), Some(r#"{"code":"AE","faults":[]}"#), Some(r#"{"code":"XX","faults":[{"at":[],"code":1,"text":""}]}"#)] {
            let found = read(text);
            assert_eq!((found.code, found.faults.len()), (AckCode::ApplicationReject, 1), "{text:?}");
        }
    }
}
