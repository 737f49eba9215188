//! "Did you mean": the names nearest to a word that is not known.

use std::fmt;

/// So many are named when several are equally near.
const NAMED_MAX: usize = 3;

/// What was probably meant: one name, or several that are equally near. Shown as `A, B or C`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meant<'a>(Vec<&'a str>);

impl<'a> Meant<'a> {
    /// The name, if there is only one.
    pub fn only(&self) -> Option<&'a str> {
        if let [one] = self.0.as_slice() { Some(one) } else { None }
    }
}

impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [first @ .., last] if !first.is_empty() => write!(f, "{} or {last}", first.join(", ")),
            names => f.write_str(&names.concat()),
        }
    }
}

/// The candidate that was probably meant, if one is near enough to be a slip of the keys; if several are equally near, all of them: `A, B or C`.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<Meant<'a>> {
    let lower = word.to_lowercase();
    let mut best: Vec<&'a str> = Vec::new();
    let mut nearest = (usize::MAX, usize::MAX);
    for candidate in candidates {
        let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
        // A third of the word may be wrong, and one letter of a short word.
        let allowed = (word.chars().count().max(candidate.chars().count()) / 3).max(1);
        // Of those that are equally near in letters, the one whose case fits.
        let near = (distance, strsim::osa_distance(word, candidate));
        if candidate == word || distance > allowed || near > nearest || distance >= candidate.chars().count() {
            continue;
        }
        if near < nearest {
            nearest = near;
            best.clear();
        }
        if best.len() < NAMED_MAX && !best.contains(&candidate) {
            best.push(candidate);
        }
    }
    (!best.is_empty()).then_some(Meant(best))
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(suggest("resorces", ["resources", "route", "reply"]).map(|m| m.to_string()), Some("resources".into()));
        assert_eq!(suggest("birthdate", ["birthDate", "name"]).map(|m| m.to_string()), Some("birthDate".into()));
        assert_eq!(suggest("uqdate", ["create", "update", "merge"]).map(|m| m.to_string()), Some("update".into()));
        assert_eq!(suggest("xyz", ["resources", "on"]), None);
        assert_eq!(suggest("PID-Y", ["PID-X", "PID-Z", "PID-X"]).map(|m| m.to_string()), Some("PID-X or PID-Z".into()), "neither is nearer");
        assert_eq!(suggest("Patiant", ["patient", "Patient"]).map(|m| m.to_string()), Some("Patient".into()));
        assert_eq!(suggest("a", ["b"]), None, "a word of one letter is not a slip of another");
    }
}
