//! Times: arithmetic in v2's notation, and the zone that a time without one gets.

use crate::exchange::Timestamp;
use crate::hl7v2::Moment;
use crate::route::lineage::Step;
use crate::route::run::Run;
use crate::route::run::value::Span;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

impl Run<'_> {
    /// Minutes east of UTC for a time that carries no zone: MSH-7's, else the listener's on that day, else UTC.
    pub(crate) fn offset_for(&mut self, moment: &Moment<'_>) -> i16 {
        if let Some(offset) = moment.clock.offset_minutes {
            return offset;
        }
        let header = self.text_at(self.message.field(0, 7));
        if let Some(offset) = Moment::read(&header).and_then(|m| m.clock.offset_minutes) {
            self.note(|t| t.step(Step::Converted("the zone is that of MSH-7".to_owned()), None));
            return offset;
        }
        let name = self.context.zone;
        let zone = self.zone.get_or_insert_with(|| name.and_then(|n| jiff::tz::TimeZoneDatabase::bundled().get(n).ok()));
        let said = zone.as_ref().map_or("no zone was sent, and the listener has none: UTC", |_| "the zone is the listener's");
        if let Some(trace) = self.trace {
            trace.borrow_mut().step(Step::Converted(said.to_owned()), None);
        }
        let Some(zone) = zone else { return 0 };
        let Some(civil) = civil(moment) else { return 0 };
        zone.to_ambiguous_timestamp(civil).compatible().map_or(0, |t| minutes(zone.to_offset(t)))
    }
}

fn minutes(offset: Offset) -> i16 {
    i16::try_from(offset.seconds() / 60).unwrap_or(0)
}

fn civil(moment: &Moment<'_>) -> Option<DateTime> {
    DateTime::new(
        i16::try_from(moment.year).ok()?,
        i8::try_from(moment.month.max(1)).ok()?,
        i8::try_from(moment.day.max(1)).ok()?,
        i8::try_from(moment.clock.hour).ok()?,
        i8::try_from(moment.clock.minute).ok()?,
        i8::try_from(moment.clock.second.min(59)).ok()?,
        0,
    )
    .ok()
}

/// FHIR's date, dateTime or instant in v2's notation: `1980`, `198001`, `19800131`, `20260309142501.5+0100`. A fraction has at most four digits there.
pub(crate) fn from_fhir(text: &str) -> Option<String> {
    let (date, clock) = text.split_once('T').map_or((text, None), |(date, clock)| (date, Some(clock)));
    let mut out: String = date.split('-').collect();
    if !matches!(out.len(), 4 | 6 | 8) || !out.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let Some(clock) = clock else { return Moment::read(&out).is_some().then_some(out) };
    let (time, zone) = match clock.find(['Z', '+', '-']) {
        Some(at) => clock.split_at(at),
        None => (clock, ""),
    };
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    out.extend(whole.chars().filter(|c| *c != ':'));
    if !fraction.is_empty() {
        out.push('.');
        out.extend(fraction.chars().take(4));
    }
    match zone {
        "" => {}
        "Z" => out.push_str("+0000"),
        zone => out.extend(zone.chars().filter(|c| *c != ':')),
    }
    Moment::read(&out).is_some().then_some(out)
}

/// `t + d` or `t - d`, in v2's notation with the precision and zone of `t` (at least minutes when a clock time is added).
pub(crate) fn add(text: &str, span: Span, back: bool) -> Option<String> {
    let moment = Moment::read(text.trim())?;
    let sign = if back { -1 } else { 1 };
    let months = jiff::Span::new().try_months(i64::from(span.months) * sign).ok()?.try_seconds(span.seconds.checked_mul(sign)?).ok()?;
    let moved = civil(&moment)?.checked_add(months).ok()?;
    let mut out = format!("{:04}{:02}{:02}{:02}{:02}{:02}", moved.year(), moved.month(), moved.day(), moved.hour(), moved.minute(), moved.second());
    if !moment.has_time() && span.seconds % 86_400 == 0 {
        out.truncate(8);
    }
    if !moment.clock.fraction.is_empty() {
        out.push('.');
        out.push_str(moment.clock.fraction);
    }
    if let Some(offset) = moment.clock.offset_minutes {
        let (sign, offset) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        out.push_str(&format!("{sign}{:02}{:02}", offset / 60, offset % 60));
    }
    Some(out)
}

/// A length of time from a number and a unit: UCUM (`min`, `h`, `d`, `wk`, `mo`, `a`), v2's table 0255 or plain words.
pub(crate) fn span(number: &str, unit: &str) -> Option<Span> {
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.trim_end_matches('.');
    let (ucum, seconds, months) = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => ("s", 1, 0),
        "" | "min" | "mins" | "minute" | "minutes" | "m" => ("min", 60, 0),
        "h" | "hr" | "hrs" | "hour" | "hours" => ("h", 3600, 0),
        "d" | "day" | "days" => ("d", 86_400, 0),
        "w" | "wk" | "week" | "weeks" => ("wk", 604_800, 0),
        "mo" | "mon" | "month" | "months" | "l" => ("mo", 0, 1),
        "a" | "y" | "yr" | "year" | "years" => ("a", 0, 12),
        _ => return None,
    };
    let whole: i64 = number.parse().ok().or_else(|| {
        let decimal: crate::route::decimal::Decimal = number.parse().ok()?;
        bigdecimal::ToPrimitive::to_i64(&decimal).filter(|n| decimal == *n)
    })?;
    let months = i32::try_from(whole.checked_mul(months)?).ok()?;
    Some(Span { months, seconds: whole.checked_mul(seconds)?, unit: ucum, count: whole })
}

/// The received time in v2's notation, UTC.
pub(crate) fn from_timestamp(received: Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_millisecond(received.0) else { return String::new() };
    let at = at.to_zoned_datetime(TimeZone::UTC);
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}.{:03}+0000",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.subsec_nanosecond() / 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::from_fhir;

    #[test]
    fn fhirs_times_are_v2s_with_their_precision_and_zone() {
        let told = [
            ("1980", Some("1980")),
            ("1980-01", Some("198001")),
            ("1980-01-31", Some("19800131")),
            ("2026-03-09T14:25:01+01:00", Some("20260309142501+0100")),
            ("2026-03-09T14:25:01.123456Z", Some("20260309142501.1234+0000")),
            ("2026-03-09T14:25:01-05:30", Some("20260309142501-0530")),
            ("2026-13-09", None),
            ("yesterday", None),
            ("", None),
        ];
        for (fhir, v2) in told {
            assert_eq!(from_fhir(fhir).as_deref(), v2, "{fhir}");
        }
    }
}
