//! The register of codes: each has one line here and a page in docs/errors, which is part of the binary.

/// One code.
pub struct Code {
    /// `K203`.
    pub code: &'static str,
    /// One line.
    pub title: &'static str,
    /// The page, Markdown.
    pub page: &'static str,
}

macro_rules! code {
    ($code:literal, $title:literal) => {
        Code { code: $code, title: $title, page: include_str!(concat!("../../docs/errors/", $code, ".md")) }
    };
}

/// All codes in order.
pub const CODES: &[Code] = &[
    code!("K100", "a line does not fit"),
    code!("K101", "an expression begins with a quote"),
    code!("K102", "a comma or bracket inside flow form"),
    code!("K103", "a quote is not closed"),
    code!("K104", "unknown first key"),
    code!("K105", "unknown `$` key"),
    code!("K106", "`: ` or ` #` ends a value"),
    code!("K107", "a key stands twice"),
    code!("K108", "a feature of YAML that is not used"),
    code!("K109", "a tab in the indentation"),
    code!("K110", "an expression can't be read"),
    code!("K111", "one expression is wanted"),
    code!("K112", "a value of another kind"),
    code!("K113", "unknown key"),
    code!("K114", "not one of the words"),
    code!("K115", "a key is missing"),
    code!("K116", "nested too deeply"),
    code!("K117", "a map's head is an arrow"),
    code!("K118", "a bracket is never closed"),
    code!("K119", "a field in quotes"),
    code!("K121", "not in this version yet"),
    code!("K201", "wrong notation"),
    code!("K202", "no such segment"),
    code!("K203", "no such field"),
    code!("K204", "no such component"),
    code!("K205", "unknown name"),
    code!("K206", "no current value of that type"),
    code!("K207", "two places of equal rank"),
    code!("K208", "out of reach here"),
    code!("K209", "not in this message type"),
    code!("K210", "no such message"),
    code!("K212", "a Z-segment is not declared"),
    code!("K213", "no segment, field or component"),
    code!("K214", "a control ID for several messages"),
    code!("K215", "a message without a type"),
    code!("K216", "no place in the message"),
    code!("K217", "longer than the field"),
    code!("K301", "no such element"),
    code!("K302", "no such type"),
    code!("K303", "list or single"),
    code!("K305", "a required element may stay empty"),
    code!("K307", "a code that is not in the value set"),
    code!("K309", "a reference to something else"),
    code!("K310", "set by two maps"),
    code!("K312", "two branches of a choice"),
    code!("K313", "a constant of another type"),
    code!("K314", "an empty constant"),
    code!("K315", "an extension in the wrong place"),
    code!("K316", "no URI"),
    code!("K317", "not a unit of UCUM"),
    code!("K401", "no way between the types"),
    code!("K402", "several ways between the types"),
    code!("K404", "a conversion that loses something"),
    code!("K405", "many into one"),
    code!("K406", "no condition"),
    code!("K407", "no arithmetic with these"),
    code!("K408", "unreachable"),
    code!("K409", "wrong arguments"),
    code!("K410", "recursion"),
    code!("K411", "a parameter that nobody takes"),
    code!("K412", "a name that nothing reads"),
    code!("K413", "a time without a zone"),
    code!("K501", "a code or table that is not in the source"),
    code!("K502", "a code that is not in the target"),
    code!("K503", "what of unknown codes?"),
    code!("K504", "no such table or value set"),
    code!("K505", "two tables for one join"),
    code!("K506", "no such column"),
    code!("K509", "unknown authorities could collide"),
    code!("K601", "no `$save`"),
    code!("K602", "the identity is not stored"),
    code!("K603", "the identity lacks a system"),
    code!("K604", "several identifiers"),
    code!("K605", "a fallback as identity"),
    code!("K606", "how to merge a list"),
    code!("K608", "two routes write one identity"),
    code!("K610", "a route takes no messages"),
    code!("K611", "a route makes nothing"),
    code!("K612", "no length of time"),
    code!("K613", "an unknown word in a route"),
    code!("K614", "made from what?"),
    code!("K615", "another resource"),
    code!("K616", "resources and a message"),
    code!("K617", "a patch that the target does not take"),
    code!("K618", "an identity that does not keep the order"),
    code!("K619", "no such search parameter"),
    code!("K620", "a message as received, and lines that would change it"),
    code!("K621", "a target that cannot be searched"),
    code!("K622", "found at another target"),
    code!("K623", "an answer that cannot be one"),
    code!("K701", "unknown listener or target"),
    code!("K702", "two routes of one name"),
    code!("K703", "an overlay that nobody uses"),
    code!("K704", "nothing to extend"),
    code!("K705", "a document stands twice"),
    code!("K706", "the line to change is gone"),
    code!("K707", "routes like each other"),
    code!("K708", "no such overlay"),
    code!("K709", "a version of the language that this Kiln doesn't know"),
    code!("K710", "nothing uses this"),
    code!("K711", "a target that does not take what the route makes"),
    code!("K720", "the site file is not YAML"),
    code!("K721", "an unknown key in the site file"),
    code!("K722", "a value of another kind in the site file"),
    code!("K723", "a key is missing in the site file"),
    code!("K724", "not one of the words in the site file"),
    code!("K725", "a value in the wrong form in the site file"),
    code!("K726", "a secret in the site file"),
    code!("K727", "a secret can't be read"),
    code!("K728", "one of two"),
    code!("K729", "a key stands twice in the site file"),
    code!("K730", "no such folder"),
    code!("K731", "two listeners with one address"),
    code!("K732", "a certificate or a key that can't be used"),
    code!("K733", "a conformance profile that can't be used"),
    code!("K740", "a server can't be asked"),
    code!("K741", "a server can't do what a route wants"),
];

/// The long explanation of a code, Markdown; `None` if there is no such code. Case is ignored.
pub fn page(code: &str) -> Option<&'static str> {
    find(code).map(|c| c.page)
}

/// The one-line title of a code.
pub fn title(code: &str) -> Option<&'static str> {
    find(code).map(|c| c.title)
}

fn find(code: &str) -> Option<&'static Code> {
    CODES.iter().find(|c| c.code.eq_ignore_ascii_case(code.trim()))
}
