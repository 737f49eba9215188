//! Reading the guide's FHIR column: `contact.organization(Organization.contact.name)`, `extension[1].valueString`, `status="finished"`.

use crate::fhir;
use crate::route::guide::at::At;
use std::collections::HashMap;

/// What a row wants.
pub(crate) struct Wanted {
    pub(crate) at: At,
    /// The value, where the row assigns one.
    pub(crate) constant: Option<String>,
    /// The row says that something is there, not what.
    pub(crate) hangs: bool,
}

/// The alternatives of a row (`who(Organization|Device)`); none if its type is none of FHIR's. `urls` learns what `extension[1]` means in this sheet.
pub(crate) fn wanted(base: &str, whole: &str, assigned: &str, urls: &mut HashMap<String, String>) -> Vec<Wanted> {
    let text = whole;
    let (text, inline) = match text.split_once("=\"") {
        Some((text, _)) => (text, text.len().checked_add(1).and_then(|n| whole.get(n..))),
        None => (text, None),
    };
    // A corrected target may name its own type.
    let first = text.split(['.', '[', '(']).next().unwrap_or("");
    let (base, text) = match fhir::type_named(first) {
        Some(_) if first != base && first.starts_with(|c: char| c.is_ascii_uppercase()) => (first, text),
        _ => (base, text),
    };
    let Some(root) = At::root(base) else { return Vec::new() };
    // A corrected target names an extension by its URL: `extension(http://...)`, inside another one `extension(group)`.
    let mut written = text.to_owned();
    while let Some((head, rest)) = written.split_once("extension(")
        && let Some((url, tail)) = rest.split_once(')')
    {
        let prefix = format!("{head}extension[={}]", urls.len());
        urls.insert(prefix.clone(), url.to_owned());
        written = format!("{prefix}{tail}");
    }
    let text = written.as_str();
    let constant = inline.and_then(quoted).or_else(|| quoted(assigned));
    let open = text.trim_end_matches(')');
    let (stem, is_url) = match open.strip_suffix(".url").or_else(|| open.strip_suffix(".uri")) {
        Some(stem) if stem.rsplit(['.', '(']).next().is_some_and(|s| s.starts_with("extension")) => (stem, true),
        _ => (text, false),
    };
    if is_url && let Some(url) = &constant {
        urls.insert(stem.to_owned(), url.clone());
    }
    let words = !assigned.is_empty() && constant.is_none();
    // That one place is part of another hangs on the inner one.
    let refers = stem.contains(".reference(");
    // A system or a kind without a value assigned: the guide leaves it to be guessed from the field.
    let beside = constant.is_none() && (stem.ends_with(".system") || stem.ends_with("type.coding.code"));
    let made = places(root, stem, urls);
    // The guide's assignment sometimes stands a row too high, beside a whole resource or type, which is no constant.
    let simple = |at: &At| at.types.last().and_then(|t| fhir::type_named(t)).is_none_or(|t| t.kind() == fhir::Kind::Primitive);
    made.into_iter()
        .map(|at| {
            let complex = constant.is_some() && !simple(&at);
            let constant = constant.clone().filter(|_| !is_url && !complex);
            Wanted { at, constant, hangs: is_url || words || refers || beside || complex }
        })
        .collect()
}

/// `"home"`; what is put together from several is no constant.
fn quoted(text: &str) -> Option<String> {
    let inner = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('"')).then(|| inner.to_owned())
}

fn places(root: At, text: &str, urls: &HashMap<String, String>) -> Vec<At> {
    let mut all = vec![root];
    let mut token = String::new();
    let mut opened = false;
    let mut begun = false;
    let mut indexed = false;
    let mut end = 0;
    let mut flush = |token: &mut String, opened: &mut bool, end: usize, next: Option<char>, all: &mut Vec<At>| {
        if token.is_empty() {
            return;
        }
        let word = std::mem::take(token);
        let first = !std::mem::replace(&mut begun, true);
        if std::mem::take(opened) {
            let alternatives: Vec<At> = all.iter().flat_map(|at| word.split('|').map(|w| at.resource(w.trim()))).collect();
            *all = alternatives;
            return;
        }
        // `.reference(Location)` is the reference itself; `Quantity.code` names its own type; `$this` is the whole.
        if word == "reference" && next == Some('(') || word.starts_with('$') || first && all.iter().all(|at| at.root == word) {
            return;
        }
        let url = word.starts_with("extension").then(|| urls.get(text.get(..end).unwrap_or("").trim_end_matches('.'))).flatten();
        for at in all.iter_mut() {
            *at = match url {
                Some(url) => at.extension(url),
                // `value.CodeableConcept` is `valueCodeableConcept`.
                None if at.last() == "value" && at.types.last() == Some(&"") && fhir::type_named(&word).is_some() => {
                    at.parent().step(&format!("{}{word}", at.last()))
                }
                None => at.step(&word),
            };
        }
    };
    for (at, c) in text.char_indices() {
        match c {
            '[' => indexed = true,
            ']' | '}' => {
                indexed = false;
                end = at + c.len_utf8();
            }
            _ if indexed => end = at + c.len_utf8(),
            '.' | ')' | ':' => flush(&mut token, &mut opened, end, Some(c), &mut all),
            '(' => {
                flush(&mut token, &mut opened, end, Some(c), &mut all);
                opened = true;
            }
            c => {
                token.push(c);
                end = at + c.len_utf8();
            }
        }
    }
    flush(&mut token, &mut opened, end, None, &mut all);
    all
}
