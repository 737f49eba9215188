//! Constants: a quoted scalar, checked against the element that gets it.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Node, Strength, Type};
use crate::route::compile::{Compiler, Wanted};

/// Short names for the code systems that everybody writes.
const SYSTEMS: &[(&str, &str)] = &[
    ("loinc", "http://loinc.org"),
    ("sct", "http://snomed.info/sct"),
    ("snomed", "http://snomed.info/sct"),
    ("ucum", "http://unitsofmeasure.org"),
    ("cvx", "http://hl7.org/fhir/sid/cvx"),
    ("icd-10", "http://hl7.org/fhir/sid/icd-10"),
    ("icd-10-cm", "http://hl7.org/fhir/sid/icd-10-cm"),
    ("ndc", "http://hl7.org/fhir/sid/ndc"),
    ("rxnorm", "http://www.nlm.nih.gov/research/umls/rxnorm"),
];

impl Compiler<'_> {
    /// The constant as FHIR, under its JSON name; `None` after a diagnostic.
    pub(crate) fn constant(&mut self, text: &str, wanted: &Wanted, span: Span) -> Option<(&'static str, Node)> {
        let ty = self.constant_type(text, wanted, span)?;
        let node = self.constant_of(text, ty, wanted, span)?;
        Some((wanted.name_for(ty), node))
    }

    fn constant_type(&mut self, text: &str, wanted: &Wanted, span: Span) -> Option<Type> {
        if let [one] = wanted.types.as_slice() {
            return Some(*one);
        }
        let has = |name: &str| wanted.types.iter().find(|t| t.name() == name).copied();
        let boolean = has("boolean").filter(|_| matches!(text, "true" | "false"));
        let integer = has("integer").filter(|_| text.parse::<i32>().is_ok());
        let found = boolean.or(integer).or_else(|| has("string")).or_else(|| has("CodeableConcept"));
        if found.is_none() {
            let branches: Vec<&str> = wanted.types.iter().map(|t| wanted.name_for(*t)).collect();
            self.report(
                Diagnostic::error("K402", span, format!("which branch of {} is this constant for?", wanted.path))
                    .label("several types are possible")
                    .help(format!("name one: {}", branches.join(", "))),
            );
        }
        found
    }

    fn constant_of(&mut self, text: &str, ty: Type, wanted: &Wanted, span: Span) -> Option<Node> {
        if text.is_empty() {
            self.report(Diagnostic::error("K314", span, "FHIR has no empty values").label("an empty constant").help("write `nothing` to make no element"));
            return None;
        }
        let wrong = |this: &mut Self, what: &str| {
            this.report(Diagnostic::error("K313", span, format!("\"{text}\" is no {}", ty.name())).label(format!("{} wants {what}", wanted.path)));
            None
        };
        match ty.name() {
            "boolean" => match text {
                "true" => Some(Node::Bool(true)),
                "false" => Some(Node::Bool(false)),
                _ => wrong(self, "true or false"),
            },
            "integer" | "positiveInt" | "unsignedInt" => match text.parse::<i32>() {
                Ok(n) if ty.name() == "integer" || (ty.name() == "positiveInt" && n > 0) || (ty.name() == "unsignedInt" && n >= 0) => {
                    Some(Node::Number(n.to_string()))
                }
                _ => wrong(self, "a whole number in range"),
            },
            "decimal" => match text.parse::<crate::route::decimal::Decimal>() {
                Ok(_) => Some(Node::Number(text.to_owned())),
                Err(_) => wrong(self, "a decimal"),
            },
            "date" | "dateTime" | "instant" => {
                let fits = text.len() >= 4 && text.bytes().take(4).all(|b| b.is_ascii_digit());
                if fits { Some(Node::Text(text.to_owned())) } else { wrong(self, "YYYY, YYYY-MM, YYYY-MM-DD or more") }
            }
            "uri" | "url" | "canonical" | "oid" | "uuid" => {
                if text.chars().any(char::is_whitespace) {
                    wrong(self, "a URI without blanks")
                } else if wanted.path.ends_with(".system") && !text.contains(':') {
                    wrong(self, "an absolute URI, such as http://loinc.org or urn:oid:1.2.3")
                } else {
                    Some(Node::Text(text.to_owned()))
                }
            }
            "code" => self.code(text, wanted, span),
            "CodeableConcept" => Some(Node::Object(vec![("coding", Node::List(vec![self.coding(text, wanted, span)?]))])),
            "Coding" => self.coding(text, wanted, span),
            "Identifier" => match text.split_once('|') {
                Some((system, value)) if !system.is_empty() && !value.is_empty() => {
                    Some(Node::Object(vec![("system", Node::Text(system.to_owned())), ("value", Node::Text(value.to_owned()))]))
                }
                _ => wrong(self, "system|value"),
            },
            "Reference" => Some(Node::Object(vec![("reference", Node::Text(text.to_owned()))])),
            "string" | "markdown" if is_field(text) => {
                self.quoted_field(text, span);
                Some(Node::Text(text.to_owned()))
            }
            _ if ty.kind() == fhir::Kind::Primitive => Some(Node::Text(text.to_owned())),
            name => {
                self.report(
                    Diagnostic::error("K401", span, format!("a constant cannot make a {name}"))
                        .label(format!("{} is a {name}", wanted.path))
                        .help("write a body with its elements below"),
                );
                None
            }
        }
    }

    /// K119: a path in quotes is the letters, not the field.
    pub(crate) fn quoted_field(&mut self, text: &str, span: Span) {
        let fault = Diagnostic::warning("K119", span, format!("\"{text}\" in quotes is these letters, not the field")).label("a constant");
        self.report(fault.help(format!("a field stands without quotes: {text}")).fix(text));
    }

    /// K317: what is said to be UCUM is UCUM.
    pub(crate) fn check_ucum(&mut self, code: &str, span: Span) {
        let Some((from, to)) = fhir::ucum_fault(code) else { return };
        let part = code.get(from..to).filter(|p| !p.is_empty() && *p != code);
        let fault = Diagnostic::error("K317", span, format!("\"{code}\" is no unit of UCUM"))
            .label(part.map_or_else(|| "not UCUM".to_owned(), |p| format!("`{p}` is no unit there")));
        self.report(match fhir::suggest_ucum(code) {
            // Letters of another case are another unit: gm is no Gm.
            Some(meant) if meant.replace(['[', ']'], "") != code.replace(['[', ']'], "") => {
                fault.help(format!("UCUM has \"{meant}\"; case matters there, so look whether that is meant"))
            }
            Some(meant) => {
                let written = self.sources.text(span.source).get(span.start as usize..span.end as usize).unwrap_or_default();
                let mended = written.replacen(code, &meant, 1);
                let quoted = if mended.starts_with(['"', '\'']) { mended } else { format!("\"{mended}\"") };
                fault.help(format!("did you mean \"{meant}\"?")).fix(quoted)
            }
            None => fault.help("UCUM heeds case and brackets: mg/dL, mm[Hg], 10*3/uL, {cells}/uL; a unit of your own goes into `unit:` alone"),
        });
    }

    /// A code of the bound value set, as text.
    fn code(&mut self, text: &str, wanted: &Wanted, span: Span) -> Option<Node> {
        let Some(binding) = wanted.binding() else { return Some(Node::Text(text.to_owned())) };
        let set = binding.value_set;
        if set.is_complete() && binding.strength == Strength::Required && set.find(text).is_none() {
            self.unknown_code(text, set, wanted, span);
            return None;
        }
        Some(Node::Text(text.to_owned()))
    }

    fn coding(&mut self, text: &str, wanted: &Wanted, span: Span) -> Option<Node> {
        if let Some((system, code)) = text.split_once('|') {
            let system = SYSTEMS.iter().find(|(short, _)| *short == system).map_or(system, |(_, uri)| uri);
            if !system.contains(':') {
                self.report(
                    Diagnostic::error("K316", span, format!("{system} is no code system"))
                        .label("a URI, or a short name")
                        .help(format!("short names are: {}", SYSTEMS.iter().map(|(s, _)| *s).collect::<Vec<_>>().join(", "))),
                );
                return None;
            }
            if system == fhir::UCUM {
                self.check_ucum(code, span);
            }
            let display = wanted.binding().and_then(|b| b.value_set.find(code)).filter(|(s, _)| *s == system).map(|(_, d)| d);
            return Some(coding_node(Some(system), code, display));
        }
        let Some(binding) = wanted.binding() else {
            self.report(
                Diagnostic::error("K307", span, format!("{} is bound to no value set", wanted.path))
                    .label("which code system?")
                    .help(format!("write \"system|{text}\"")),
            );
            return None;
        };
        match binding.value_set.find(text) {
            Some((system, display)) => Some(coding_node(Some(system), text, Some(display))),
            None => {
                self.unknown_code(text, binding.value_set, wanted, span);
                None
            }
        }
    }

    fn unknown_code(&mut self, text: &str, set: fhir::ValueSet, wanted: &Wanted, span: Span) {
        let codes: Vec<&str> = set.codes().map(|(_, code, _)| code).collect();
        if codes.is_empty() {
            // A value set without a list of its own, such as all of LOINC.
            let fault = Diagnostic::error("K307", span, format!("\"{text}\" alone does not say of which code system it is"))
                .label(format!("a code of {}", wanted.path));
            self.report(fault.help(format!("write the system before it: \"loinc|{text}\"")));
            return;
        }
        let help = match crate::diagnostic::suggest(text, codes.iter().copied()) {
            _ if is_field(text) => format!("a field stands without quotes: {text}"),
            Some(other) => format!("did you mean \"{other}\"?"),
            None if codes.len() <= 20 => format!("its codes are: {}", codes.join(", ")),
            None => format!("it has {} codes; with another system write \"system|{text}\"", codes.len()),
        };
        self.report(
            Diagnostic::error("K307", span, format!("\"{text}\" is not in the value set {}", set.name())).label(format!("bound to {}", wanted.path)).help(help),
        );
    }
}

/// `PID-16`, `PID-5.1`: what somebody meant as a path and put in quotes.
pub(crate) fn is_field(text: &str) -> bool {
    text.split_once('-').is_some_and(|(segment, field)| {
        segment.len() == 3
            && crate::hl7v2::newest_segment(segment).is_some()
            && field.starts_with(|c: char| c.is_ascii_digit())
            && field.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'[' | b']'))
    })
}

/// A Coding in FHIR's order of elements.
pub(crate) fn coding_node(system: Option<&str>, code: &str, display: Option<&str>) -> Node {
    let mut elements = Vec::with_capacity(3);
    if let Some(system) = system.filter(|s| !s.is_empty()) {
        elements.push(("system", Node::Text(system.to_owned())));
    }
    elements.push(("code", Node::Text(code.to_owned())));
    if let Some(display) = display.filter(|d| !d.is_empty()) {
        elements.push(("display", Node::Text(display.to_owned())));
    }
    Node::Object(elements)
}
