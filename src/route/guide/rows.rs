//! The rows of the guide's sheets that name a FHIR target, as `definitions/v2-to-fhir` has them.

/// Which of the guide's four kinds of sheets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sheets {
    /// Which segments of a message structure become which resources.
    Messages,
    /// Fields into elements.
    Segments,
    /// Components into elements.
    Datatypes,
    /// Codes into codes.
    Codes,
}

impl Sheets {
    /// All four, in the order in which they are told.
    pub const ALL: [Sheets; 4] = [Sheets::Messages, Sheets::Segments, Sheets::Datatypes, Sheets::Codes];

    /// As people and JSON call it.
    pub fn name(self) -> &'static str {
        match self {
            Sheets::Messages => "messages",
            Sheets::Segments => "segments",
            Sheets::Datatypes => "datatypes",
            Sheets::Codes => "codes",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Sheets::Messages => include_str!("../../../definitions/v2-to-fhir/messages.tsv"),
            Sheets::Segments => include_str!("../../../definitions/v2-to-fhir/segments.tsv"),
            Sheets::Datatypes => include_str!("../../../definitions/v2-to-fhir/datatypes.tsv"),
            Sheets::Codes => include_str!("../../../definitions/v2-to-fhir/codesystems.tsv"),
        }
    }
}

/// A row of the guide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuideRow {
    /// Its kind of sheet.
    pub kind: Sheets,
    /// The sheet: `PID[Patient]`, `ADT_A01`, `MaritalStatus`.
    pub sheet: &'static str,
    /// The row's number in the sheet, from 1.
    pub number: u32,
    /// The v2 side: `PID-5`, `CX.4`, `ADT_A01.PID`, a code; empty where the sheet as a whole is meant.
    pub source: &'static str,
    /// Of a code, its table as the guide writes it: `HL70002`.
    pub table: &'static str,
    /// The condition, in the guide's words.
    pub condition: &'static str,
    /// The FHIR side: `name[1]`, `contact.organization(Organization)`, a code.
    pub target: &'static str,
    /// Of a code, its system.
    pub system: &'static str,
    /// What is assigned: `"home"`, or how in words.
    pub assigned: &'static str,
}

impl GuideRow {
    /// What reasons name: `PID[Patient] PID-31 extension[1].url`.
    pub fn name(&self) -> String {
        let source = if self.source.is_empty() { "-" } else { self.source };
        format!("{} {source} {}", self.sheet, self.target)
    }
}

/// All rows, in the order of the sheets.
pub(crate) fn rows() -> Vec<GuideRow> {
    let mut rows = Vec::new();
    for kind in Sheets::ALL {
        let mut sheet = "";
        for line in kind.text().lines() {
            if let Some(name) = line.strip_prefix("# ") {
                sheet = name;
                continue;
            }
            let cells: Vec<&'static str> = line.split('\t').collect();
            let cell = |n: usize| cells.get(n).copied().unwrap_or("");
            let number = cell(0).parse().unwrap_or(0);
            let row = GuideRow { kind, sheet, number, source: cell(1), table: "", condition: "", target: "", system: "", assigned: "" };
            rows.push(match kind {
                Sheets::Messages => GuideRow { condition: cell(2), target: cell(3), assigned: cell(4), ..row },
                Sheets::Segments | Sheets::Datatypes => GuideRow { condition: cell(3), target: cell(4), assigned: cell(8), ..row },
                Sheets::Codes => GuideRow { table: cell(2), condition: cell(3), target: cell(4), system: cell(5), ..row },
            });
        }
    }
    rows
}
