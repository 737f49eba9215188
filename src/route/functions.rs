//! The function library of section 7, declared once: the checker, the documentation and the editor's help come from this table.

/// What a function takes and gives, for people and for the checker.
pub(crate) struct Declaration {
    /// `join`.
    pub(crate) name: &'static str,
    /// Fewest and most arguments; `None` is no limit.
    pub(crate) arguments: (usize, Option<usize>),
    /// `join(sep, x...)`.
    pub(crate) signature: &'static str,
    /// One sentence.
    pub(crate) meaning: &'static str,
    /// An expression that uses it.
    pub(crate) example: &'static str,
}

const fn function(
    name: &'static str,
    fewest: usize,
    most: Option<usize>,
    signature: &'static str,
    meaning: &'static str,
    example: &'static str,
) -> Declaration {
    Declaration { name, arguments: (fewest, most), signature, meaning, example }
}

/// All functions, by name.
pub(crate) const FUNCTIONS: &[Declaration] = &[
    function("after", 2, Some(2), "after(s, sep) -> text?", "the text behind the first sep, nothing without one", r#"after(PID-13.1, "X")"#),
    function("before", 2, Some(2), "before(s, sep) -> text?", "the text before the first sep, all of it without one", r#"before(OBX-3.1, "-")"#),
    function(
        "bytes",
        2,
        Some(2),
        "bytes(s, encoding) -> base64Binary?",
        "encapsulated data in an encoding of table 0299: A text, Hex, Base64",
        r#"bytes(OBX-5.5, OBX-5.4)"#,
    ),
    function("contains", 2, Some(2), "contains(s, p) -> true or false", "does some value hold p", r#"contains(PID-11.1, "c/o")"#),
    function("count", 1, Some(1), "count(x) -> integer", "how many values", "count(PID-11) > 1"),
    function("date", 1, Some(1), "date(t) -> time?", "the day of a time", "date(PV1-44)"),
    function("derived", 0, Some(0), "derived() -> Identifier", "an identity from sender, control ID, route, resource and place", "update by derived()"),
    function("digits", 1, Some(1), "digits(s) -> text?", "only 0 to 9", "digits(PID-13.1)"),
    function("distinct", 1, Some(1), "distinct(x) -> values", "each value once", "distinct(OBX-3.1)"),
    function(
        "duration",
        2,
        Some(2),
        "duration(n, unit) -> duration?",
        "a length of time; the unit by UCUM (s, min, h, d, wk, mo, a) or in plain words",
        "duration(SCH-9, SCH-10)",
    ),
    function("event", 0, Some(0), "event() -> code of table 0003", "the trigger event, from MSH-9.2 or EVN-1", r#"event() = "A02""#),
    function("first", 1, Some(1), "first(x) -> value?", "the first value", "first(PID-3)"),
    function("last", 1, Some(1), "last(x) -> value?", "the last value", "last(PV1-45)"),
    function("length", 1, Some(1), "length(s) -> integer", "how many characters the first value has", "length(PID-7) > 8"),
    function("lower", 1, Some(1), "lower(s) -> text?", "in small letters", "lower(XTN.3)"),
    function(
        "matches",
        2,
        Some(2),
        "matches(s, pattern) -> true or false",
        "does some value fit a regular expression; it is checked at load",
        r#"matches(PID-3.1, "^[0-9]+$")"#,
    ),
    function("number", 1, Some(1), "number(s) -> decimal?", "text as an exact decimal", "number(OBX-5) > 7.5"),
    function("more", 1, Some(1), "more(found) -> text?", "a name for what comes behind the last match of a question, if there is more", "DSC-1: more(found)"),
    function("join", 2, None, "join(sep, x...) -> text?", "the valued ones with sep between them", r#"join(" ", XPN.2, XPN.3)"#),
    function("pad", 3, Some(3), "pad(s, width, fill) -> text?", "filled on the left up to width", r#"pad(PID-3.1, 8, "0")"#),
    function("place", 1, Some(1), "place(x) -> ERL?", "where a value of the message stands, for ERR-2", "ERR-2: place(QPD-8.4)"),
    function("raw", 1, Some(1), "raw(x) -> text?", "exactly as sent, delimiters and escapes too; raw(message) is the whole message", "raw(PID-5)"),
    function("received", 0, Some(0), "received() -> time", "when the message was received", "received()"),
    function("replace", 3, Some(3), "replace(s, old, new) -> text?", "every old becomes new", r#"replace(OBX-6.1, "_", "/")"#),
    function("round", 2, Some(2), "round(n, places) -> decimal", "rounded half away from zero", "round(number(OBX-5), 2)"),
    function("sender", 0, Some(0), "sender() -> HD", "MSH-4, or MSH-3 where that is empty", "system: sender()"),
    function("sn", 1, Some(1), "sn(s) -> SN?", "text such as `<10` or `3.5 - 5.0` as a structured numeric", "sn(OBX-7).2"),
    function("starts", 2, Some(2), "starts(s, p) -> true or false", "does some value begin with p", r#"starts(OBX-4, "1.")"#),
    function("substring", 3, Some(3), "substring(s, start, length) -> text?", "characters, counted from 1", "substring(PID-7, 1, 4)"),
    function("text", 1, Some(1), "text(x) -> text?", "as a person reads it", "text(PID-6[1])"),
    function("time", 1, Some(1), "time(t) -> time?", "the time of day of a time", "time(PV1-44)"),
    function("total", 1, Some(1), "total(found) -> integer?", "how many matches a question has in all, if the server says", "QAK-4: total(found)"),
    function("trim", 1, Some(1), "trim(s) -> text?", "without blanks at both ends", "trim(PID-5.1)"),
    function("ucum", 1, Some(1), "ucum(s) -> text?", "the unit, if it is one of UCUM (case matters), else nothing", "ucum(OBX-6.1)"),
    function("upper", 1, Some(1), "upper(s) -> text?", "in capitals", "upper(PID-8)"),
    function("uuid", 1, None, "uuid(x...) -> uuid", "a UUID (version 5) made from the values", "uuid(MSH-3, MSH-10)"),
];

/// A reference page in Markdown, one table row per function.
pub fn function_reference() -> String {
    let mut page = String::from("| function | meaning | example |\n|---|---|---|\n");
    for f in FUNCTIONS {
        page.push_str(&format!("| `{}` | {} | `{}` |\n", f.signature.replace('|', "\\|"), f.meaning, f.example.replace('|', "\\|")));
    }
    page
}
