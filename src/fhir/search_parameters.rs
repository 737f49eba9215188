//! The search parameters of FHIR R4: which there are for a resource, of which type, and what a reference may lead to.
//!
//! Source: definitions/fhir-r4/search-parameters.tsv; types, modifiers and prefixes: FHIR R4, search.html.

use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("../../definitions/fhir-r4/search-parameters.tsv");

/// Parameters of every search, and those that say what comes back (search.html, 3.1.1.3 and 3.1.1.5), beyond those that the table has for all resources.
const COMMON: &[(&str, &str)] = &[
    ("_list", "special"),
    ("_has", "special"),
    ("_type", "special"),
    ("_filter", "special"),
    ("_sort", "special"),
    ("_count", "number"),
    ("_include", "special"),
    ("_revinclude", "special"),
    ("_summary", "special"),
    ("_total", "special"),
    ("_elements", "special"),
    ("_contained", "special"),
    ("_containedType", "special"),
];

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchParameter {
    /// `birthdate`.
    pub name: &'static str,
    /// `date`, `token`, `reference`, ...
    pub kind: &'static str,
    /// What a reference may lead to, with commas between; empty if that is not known.
    targets: &'static str,
}

impl SearchParameter {
    /// What a reference may lead to; none if that is not known, or it is no reference.
    pub fn targets(self) -> impl Iterator<Item = &'static str> {
        self.targets.split(',').filter(|t| !t.is_empty())
    }

    /// The modifiers that it takes (search.html, 3.1.1.4.5); a reference also takes the name of a type.
    pub fn modifiers(self) -> &'static [&'static str] {
        match self.kind {
            "string" => &["missing", "exact", "contains"],
            "token" => &["missing", "text", "not", "above", "below", "in", "not-in", "of-type"],
            "reference" => &["missing", "identifier", "above", "below"],
            "uri" => &["missing", "above", "below"],
            _ if matches!(self.name, "_include" | "_revinclude") => &["iterate"],
            "special" => &[],
            _ => &["missing"],
        }
    }

    /// May a value begin with `eq`, `ge` and the like (search.html, 3.1.1.4.6)?
    pub fn takes_prefix(self) -> bool {
        matches!(self.kind, "number" | "date" | "quantity")
    }
}

/// The prefixes of numbers, dates and quantities.
pub const SEARCH_PREFIXES: &[&str] = &["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"];

static BY_RESOURCE: LazyLock<HashMap<&'static str, Vec<SearchParameter>>> = LazyLock::new(|| {
    let parameter = |word: &'static str| {
        let mut parts = word.splitn(3, ':');
        Some(SearchParameter { name: parts.next()?, kind: parts.next()?, targets: parts.next().unwrap_or("") })
    };
    let line = |line: &'static str| line.split_once('\t').map(|(resource, rest)| (resource, rest.split(' ').filter_map(parameter).collect()));
    TABLE.lines().filter(|l| !l.starts_with('#')).filter_map(line).collect()
});

/// All parameters of a resource, its own ones first.
pub fn search_parameters(resource: &str) -> Vec<SearchParameter> {
    let of = |name: &str| BY_RESOURCE.get(name).into_iter().flatten().copied();
    let common = COMMON.iter().map(|(name, kind)| SearchParameter { name, kind, targets: "" });
    of(resource).chain(of("DomainResource")).chain(of("Resource")).chain(common).collect()
}

/// One parameter of a resource.
pub fn search_parameter(resource: &str, name: &str) -> Option<SearchParameter> {
    search_parameters(resource).into_iter().find(|p| p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_types_and_references_have_targets() {
        assert_eq!(search_parameter("Patient", "birthdate").map(|p| p.kind), Some("date"));
        assert_eq!(search_parameter("Patient", "_id").map(|p| p.kind), Some("token"));
        assert_eq!(search_parameter("Patient", "status"), None);
        let organization = search_parameter("Patient", "organization").expect("a parameter");
        assert_eq!(organization.targets().collect::<Vec<_>>(), ["Organization"]);
        assert!(crate::fhir::types().filter(|t| t.kind() == crate::fhir::Kind::Resource).filter(|t| !search_parameters(t.name()).is_empty()).count() > 130);
    }
}
