//! `validate:` of a listener, and the file of a conformance profile that it names.

use crate::diagnostic::{Diagnostic, SourceId, Sources};
use crate::hl7v2::{Address, Predicate, Profile, ProfileUsage, Rule, Validation, newest_datatype, newest_field, newest_table};
use crate::site::keys::{PROFILE, RULE, VALIDATE};
use crate::site::reader::{Entry, Keys, Reader};
use crate::site::yaml::Yaml;
use config::{Value, ValueKind};
use std::path::Path;
use std::sync::Arc;

/// Reads `validate:`; `folder` is that of the site file.
pub(crate) fn validate(r: &mut Reader<'_>, k: &Keys<'_>, folder: &Path) -> Option<Validation> {
    let entry = k.get("validate")?;
    match entry.scalar() {
        Some("dictionary") => return Some(Validation { dictionary: true, profiles: Vec::new() }),
        Some("none") => return None,
        _ => {}
    }
    if entry.scalar().is_some() {
        r.word(&entry, &[("dictionary", ()), ("none", ())]);
        return None;
    }
    let k = r.keys(&entry, VALIDATE);
    let dictionary = k.get("dictionary").and_then(|e| r.word(&e, &[("on", true), ("off", false)])).unwrap_or(false);
    let mut profiles = Vec::new();
    for e in k.get("profile").map(|e| r.list(&e)).unwrap_or_default() {
        let Some(path) = r.text(&e).map(|text| folder.join(text)) else { continue };
        r.files.push(path.clone());
        match std::fs::read_to_string(&path) {
            Ok(text) => match read(&text) {
                Ok(profile) => profiles.push(Arc::new(profile)),
                Err(faults) => faults.into_iter().for_each(|fault| {
                    let shown = r.text(&e).unwrap_or_default();
                    r.faults.push(Diagnostic::error("K733", e.span, format!("{shown}:{fault}")).label("this profile"));
                }),
            },
            Err(error) => {
                let fault = Diagnostic::error("K733", e.span, format!("`{}` cannot be read: {}", path.display(), error.kind())).label("no profile");
                r.faults.push(fault.help("paths begin at the folder of the site file"));
            }
        }
    }
    if !dictionary && profiles.is_empty() && k.get("profile").is_none() {
        r.missing(k.key, "`validate` says against what", "write `validate: dictionary`, or `validate: { profile: FILE }`");
    }
    Some(Validation { dictionary, profiles })
}

/// A profile's text, or what is wrong with it, each with its line: `3: ...`.
fn read(text: &str) -> Result<Profile, Vec<String>> {
    let mut faults = Vec::new();
    let yaml = Yaml::read(text, SourceId(0), &mut faults);
    let beginning = crate::diagnostic::Span { source: SourceId(0), start: 0, end: 0 };
    let mut r = Reader { places: &yaml.places, faults, beginning, files: Vec::new() };
    let root = Value::new(None, ValueKind::Table(config::Source::collect(&yaml).unwrap_or_default()));
    let root = r.root(&root);
    let profile = profile(&mut r, &root);
    if r.faults.is_empty() {
        return Ok(profile);
    }
    let mut sources = Sources::default();
    sources.add("profile", text);
    let told = |d: &Diagnostic| {
        let cure = d.help.as_deref().map(|help| format!("; {help}")).unwrap_or_default();
        format!("{}: {}{cure}", sources.line_column(d.span).0, d.message).replace("a site file", "a profile")
    };
    Err(r.faults.iter().map(told).collect())
}

fn profile(r: &mut Reader<'_>, root: &Entry<'_>) -> Profile {
    let k = r.keys(root, PROFILE);
    let name = k.get("profile").and_then(|e| r.text(&e).map(str::to_owned));
    if name.is_none() {
        r.missing(k.key, "the profile has no name", "add `profile: NAME`");
    }
    let messages = k.get("messages").map(|e| r.list(&e)).unwrap_or_default().iter().filter_map(|e| r.text(e).map(str::to_owned)).collect();
    let mut rules = Vec::new();
    for e in k.get("rules").map(|e| r.entries(&e)).unwrap_or_default() {
        rules.extend(rule(r, &e));
    }
    if rules.is_empty() && r.faults.is_empty() {
        r.missing(k.key, "the profile has no rules", "add `rules:` with places and what is wanted there, such as `PID-3: R`");
    }
    Profile { name: name.unwrap_or_default(), messages, rules }
}

const USAGES: [(&str, ProfileUsage); 5] = [
    ("R", ProfileUsage::Required),
    ("RE", ProfileUsage::RequiredOrEmpty),
    ("O", ProfileUsage::Optional),
    ("C", ProfileUsage::Conditional),
    ("X", ProfileUsage::NotSupported),
];

fn rule(r: &mut Reader<'_>, e: &Entry<'_>) -> Option<Rule> {
    let place = place(r, e, e.name())?;
    let mut rule = Rule { place, usage: ProfileUsage::Optional, when: None, min: 0, max: None, length: None, codes: Vec::new(), table: None };
    if e.scalar().is_some() {
        rule.usage = r.word(e, &USAGES)?;
        return Some(rule);
    }
    let k = r.keys(e, RULE);
    rule.usage = k.get("usage").and_then(|e| r.word(&e, &USAGES)).unwrap_or(rule.usage);
    let count = |r: &mut Reader<'_>, key: &str| k.get(key).and_then(|e| r.number(&e, 0, 1_000_000)).and_then(|n| u32::try_from(n).ok());
    rule.min = count(r, "min").unwrap_or(0);
    rule.max = count(r, "max");
    rule.length = count(r, "length");
    rule.codes = texts(r, &k, "codes");
    if let Some(e) = k.get("table") {
        rule.table = r.parsed(&e, |id| newest_table(id).map(|_| id.to_owned()), "a table of HL7", "write four digits in quotes: `\"0001\"`");
    }
    if let Some(e) = k.get("when") {
        let text = r.text(&e)?.to_owned();
        rule.when = place_of(r, &e, &text).map(|place| Predicate { place, codes: texts(r, &k, "in") });
    } else if rule.usage == ProfileUsage::Conditional {
        r.missing(e.key, &format!("`{}` is conditional and says no condition", e.name()), "add `when: PLACE`, and `in: [CODE]` where its value counts");
    }
    Some(rule)
}

fn texts(r: &mut Reader<'_>, k: &Keys<'_>, key: &str) -> Vec<String> {
    k.get(key).map(|e| r.list(&e)).unwrap_or_default().iter().filter_map(|e| r.text(e).map(str::to_owned)).collect()
}

fn place(r: &mut Reader<'_>, e: &Entry<'_>, text: &str) -> Option<Address> {
    let known = known_place(text);
    if let Err(fault) = &known {
        r.faults.push(Diagnostic::error("K725", e.key, format!("`{text}` {fault}")));
    }
    known.ok()
}

fn place_of(r: &mut Reader<'_>, e: &Entry<'_>, text: &str) -> Option<Address> {
    let known = known_place(text);
    if let Err(fault) = &known {
        r.faults.push(Diagnostic::error("K725", e.span, format!("`{text}` {fault}")));
    }
    known.ok()
}

/// A place that some release has, or one of a Z-segment.
fn known_place(text: &str) -> Result<Address, String> {
    let address = Address::read(text).filter(|a| a.occurrence.is_none() && a.repetition.is_none());
    let address = address.ok_or("is no place; write a segment, field, component or subcomponent: `PID`, `PID-3`, `PID-3.4.2`")?;
    if address.segment.starts_with('Z') {
        return Ok(address);
    }
    if crate::hl7v2::newest_segment(&address.segment).is_none() {
        return Err("is no segment of any release; those of your own begin with Z".to_owned());
    }
    let Some(field) = address.field else { return Ok(address) };
    let Some((_, def)) = newest_field(&address.segment, usize::from(field)) else {
        return Err(format!("is no field: {} has none of that number in any release", address.segment));
    };
    let mut datatype = def.datatype();
    for n in [address.component, address.subcomponent].into_iter().flatten() {
        match newest_datatype(datatype).filter(|d| !d.is_primitive()) {
            Some(composite) => match composite.component(usize::from(n)) {
                Some(component) => datatype = component.datatype(),
                None => return Err(format!("is no component: {datatype} has none of that number")),
            },
            // What OBX-2 or a withdrawn type decides, nobody knows here; of a primitive there is one component.
            None if n == 1 || datatype == "varies" || newest_datatype(datatype).is_none() => return Ok(address),
            None => return Err(format!("is no component: {datatype} has none")),
        }
    }
    Ok(address)
}
