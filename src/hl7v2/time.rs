//! Dates and times (HL7 chapter 2A: DT, DTM, TM, TS): read with their precision, checked, and written as FHIR wants them.

use nom::bytes::complete::{take_while_m_n, take_while1};
use nom::character::complete::{char, one_of};
use nom::combinator::{all_consuming, map, opt, verify};
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// How much of a moment was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// `2026`
    Year,
    /// `202603`
    Month,
    /// `20260309`
    Day,
    /// `2026030914`
    Hour,
    /// `202603091425`
    Minute,
    /// `20260309142501`, with or without a fraction
    Second,
}

/// A DT, DTM or TS: `YYYY[MM[DD[HH[MM[SS[.S...]]]]]][+/-ZZZZ]`. What was not said has its lowest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment<'a> {
    /// How much was said.
    pub precision: Precision,
    /// 0 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31, and a day of that month.
    pub day: u8,
    /// Time of day; all zero where only a date was said.
    pub clock: ClockTime<'a>,
}

/// A TM: `HH[MM[SS[.S...]]][+/-ZZZZ]`. What was not said is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockTime<'a> {
    /// Hour, minute or second.
    pub precision: Precision,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// The digits after the point, as many as were sent; empty without a fraction.
    pub fraction: &'a str,
    /// Minutes east of Greenwich.
    pub offset_minutes: Option<i16>,
}

impl<'a> Moment<'a> {
    /// Reads a DT, DTM or the first component of a TS. Nothing for text that is no such value, a day that does not exist included.
    pub fn read(text: &'a str) -> Option<Moment<'a>> {
        all_consuming(moment).parse(text).ok().map(|(_, m)| m)
    }

    /// FHIR date: `2026`, `2026-03` or `2026-03-09`; the time is left out.
    pub fn fhir_date(&self) -> String {
        let mut out = String::with_capacity(DATETIME_LENGTH);
        self.push_date(&mut out);
        out
    }

    fn push_date(&self, out: &mut String) {
        push_pair(self.year / 100, out);
        push_pair(self.year % 100, out);
        if self.precision >= Precision::Month {
            out.push('-');
            push_pair(u16::from(self.month), out);
        }
        if self.precision >= Precision::Day {
            out.push('-');
            push_pair(u16::from(self.day), out);
        }
    }

    /// FHIR dateTime. One with a time needs an offset: the sender's, else `offset_minutes`; without either only the date is left.
    pub fn fhir_datetime(&self, offset_minutes: Option<i16>) -> String {
        let mut out = self.fhir_date();
        if let Some(offset) = self.clock.offset_minutes.or(offset_minutes).filter(|_| self.has_time()) {
            out.push('T');
            self.clock.push_time(&mut out);
            push_offset(offset, &mut out);
        }
        out
    }

    /// FHIR instant: nothing unless the second was said and an offset is known.
    pub fn fhir_instant(&self, offset_minutes: Option<i16>) -> Option<String> {
        self.clock.offset_minutes.or(offset_minutes)?;
        (self.precision == Precision::Second).then(|| self.fhir_datetime(offset_minutes))
    }

    /// Was at least the hour said?
    pub fn has_time(&self) -> bool {
        self.precision >= Precision::Hour
    }
}

impl<'a> ClockTime<'a> {
    const MIDNIGHT: ClockTime<'static> = ClockTime { precision: Precision::Day, hour: 0, minute: 0, second: 0, fraction: "", offset_minutes: None };

    /// Reads a TM.
    pub fn read(text: &'a str) -> Option<ClockTime<'a>> {
        all_consuming(clock_with_offset).parse(text).ok().map(|(_, t)| t)
    }

    /// FHIR time, `14:25:01.5`; minutes and seconds that were not said are zero, as FHIR's type needs them.
    pub fn fhir_time(&self) -> String {
        let mut out = String::with_capacity(DATETIME_LENGTH);
        self.push_time(&mut out);
        out
    }

    fn push_time(&self, out: &mut String) {
        push_pair(u16::from(self.hour), out);
        out.push(':');
        push_pair(u16::from(self.minute), out);
        out.push(':');
        push_pair(u16::from(self.second), out);
        if !self.fraction.is_empty() {
            out.push('.');
            out.push_str(self.fraction);
        }
    }
}

/// Room for a dateTime to the second with its offset.
const DATETIME_LENGTH: usize = "2026-03-09T14:25:01+01:00".len();

/// `+01:00`; Greenwich is `Z`.
fn push_offset(minutes: i16, out: &mut String) {
    if minutes == 0 {
        out.push('Z');
        return;
    }
    out.push(if minutes < 0 { '-' } else { '+' });
    push_pair(minutes.unsigned_abs() / 60, out);
    out.push(':');
    push_pair(minutes.unsigned_abs() % 60, out);
}

/// Two digits; `format!` takes ten times as long, and every message has some times.
fn push_pair(number: u16, out: &mut String) {
    let digit = |n: u16| char::from(b'0' + u8::try_from(n % 10).unwrap_or(0));
    out.push(digit(number / 10));
    out.push(digit(number));
}

fn digits<const N: usize>(input: &str) -> IResult<&str, u16> {
    map(take_while_m_n(N, N, |c: char| c.is_ascii_digit()), |d: &str| d.bytes().fold(0, |n, b| n * 10 + u16::from(b - b'0'))).parse(input)
}

/// Two digits within a range.
fn pair(low: u16, high: u16) -> impl Fn(&str) -> IResult<&str, u8> {
    move |input| map(verify(digits::<2>, |n| (low..=high).contains(n)), |n| u8::try_from(n).unwrap_or(0)).parse(input)
}

fn moment(input: &str) -> IResult<&str, Moment<'_>> {
    let (rest, year) = digits::<4>(input)?;
    let (rest, month) = opt(pair(1, 12)).parse(rest)?;
    let (rest, day) = match month {
        Some(month) => opt(verify(pair(1, 31), |day| *day <= days_of(year, month))).parse(rest)?,
        None => (rest, None),
    };
    let (rest, time) = match day {
        Some(_) => opt(clock).parse(rest)?,
        None => (rest, None),
    };
    let (rest, offset_minutes) = opt(offset).parse(rest)?;
    let date_precision = match (month, day) {
        (None, _) => Precision::Year,
        (_, None) => Precision::Month,
        _ => Precision::Day,
    };
    let clock = ClockTime { offset_minutes, ..time.unwrap_or(ClockTime::MIDNIGHT) };
    let precision = if time.is_some() { clock.precision } else { date_precision };
    Ok((rest, Moment { precision, year, month: month.unwrap_or(1), day: day.unwrap_or(1), clock }))
}

fn clock(input: &str) -> IResult<&str, ClockTime<'_>> {
    let (rest, hour) = pair(0, 23)(input)?;
    let (rest, minute) = opt(pair(0, 59)).parse(rest)?;
    let (rest, second) = match minute {
        Some(_) => opt(pair(0, 59)).parse(rest)?,
        None => (rest, None),
    };
    let (rest, fraction) = match second {
        Some(_) => opt(preceded(char('.'), take_while1(|c: char| c.is_ascii_digit()))).parse(rest)?,
        None => (rest, None),
    };
    let precision = match (minute, second) {
        (None, _) => Precision::Hour,
        (_, None) => Precision::Minute,
        _ => Precision::Second,
    };
    let time = ClockTime { precision, hour, minute: minute.unwrap_or(0), second: second.unwrap_or(0), fraction: fraction.unwrap_or(""), offset_minutes: None };
    Ok((rest, time))
}

fn clock_with_offset(input: &str) -> IResult<&str, ClockTime<'_>> {
    map((clock, opt(offset)), |(time, offset_minutes)| ClockTime { offset_minutes, ..time }).parse(input)
}

/// `+HHMM`; the widest in use is 14 hours.
fn offset(input: &str) -> IResult<&str, i16> {
    let (rest, sign) = one_of("+-").parse(input)?;
    let (rest, (hours, minutes)) = verify((pair(0, 14), pair(0, 59)), |(h, m)| *h < 14 || *m == 0).parse(rest)?;
    let total = i16::from(hours) * 60 + i16::from(minutes);
    Ok((rest, if sign == '-' { -total } else { total }))
}

fn days_of(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::{ClockTime, Moment, Precision};
    use proptest::prelude::*;

    #[test]
    fn every_precision() {
        for (text, precision, date, datetime) in [
            ("2026", Precision::Year, "2026", "2026"),
            ("202603", Precision::Month, "2026-03", "2026-03"),
            ("20260309", Precision::Day, "2026-03-09", "2026-03-09"),
            ("2026030914", Precision::Hour, "2026-03-09", "2026-03-09T14:00:00Z"),
            ("202603091425", Precision::Minute, "2026-03-09", "2026-03-09T14:25:00Z"),
            ("20260309142501+0130", Precision::Second, "2026-03-09", "2026-03-09T14:25:01+01:30"),
            ("20260309142501.12345-0500", Precision::Second, "2026-03-09", "2026-03-09T14:25:01.12345-05:00"),
            ("20240229", Precision::Day, "2024-02-29", "2024-02-29"),
            ("202603091425+0000", Precision::Minute, "2026-03-09", "2026-03-09T14:25:00Z"),
        ] {
            let moment = Moment::read(text).unwrap_or_else(|| panic!("{text} is a moment"));
            assert_eq!((moment.precision, &*moment.fhir_date(), &*moment.fhir_datetime(Some(0))), (precision, date, datetime), "{text}");
        }
        assert_eq!(Moment::read("202603091425").map(|m| m.fhir_datetime(None)), Some("2026-03-09".to_owned()));
        assert_eq!(Moment::read("202603091425").and_then(|m| m.fhir_instant(Some(60))), None);
        assert_eq!(Moment::read("20260309142501").and_then(|m| m.fhir_instant(Some(60))), Some("2026-03-09T14:25:01+01:00".to_owned()));
        assert_eq!(ClockTime::read("0815").map(|t| t.fhir_time()), Some("08:15:00".to_owned()));
    }

    #[test]
    fn what_real_senders_write_instead() {
        for text in [
            "",
            "01/15/2025 14:30:00",
            "2026-01-15T14:30:00",
            "201860301131228-0500",
            "20120821140551-0500000",
            "20180808000000000",
            "19_610_615",
            "DOB",
            "20230229",
            "20261301",
            "2026030924",
            "202603091460",
            "20260309142501.",
            "202",
            "20260309142501+9900",
            " 2026",
            "２０２６",
        ] {
            assert_eq!(Moment::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9+.-]{0,26}|.{0,20}") {
            if let Some(moment) = Moment::read(&text) {
                prop_assert!(moment.fhir_datetime(Some(-30)).len() >= 4);
            }
            let _ = ClockTime::read(&text);
        }
    }
}
