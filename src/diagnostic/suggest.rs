//! "Did you mean": the names nearest to a word that is not known.

use std::borrow::Cow;

/// So many are named when several are equally near.
const NAMED_MAX: usize = 3;

/// The candidate that was probably meant, if one is near enough to be a slip of the keys; if several are equally near, all of them: `A, B or C`.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<Cow<'a, str>> {
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
    match best.as_slice() {
        [] => None,
        [one] => Some(Cow::Borrowed(one)),
        [first @ .., last] => Some(Cow::Owned(format!("{} or {last}", first.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(suggest("resorces", ["resources", "route", "reply"]), Some("resources".into()));
        assert_eq!(suggest("birthdate", ["birthDate", "name"]), Some("birthDate".into()));
        assert_eq!(suggest("uqdate", ["create", "update", "merge"]), Some("update".into()));
        assert_eq!(suggest("xyz", ["resources", "on"]), None);
        assert_eq!(suggest("PID-Y", ["PID-X", "PID-Z", "PID-X"]), Some("PID-X or PID-Z".into()), "neither is nearer");
        assert_eq!(suggest("Patiant", ["patient", "Patient"]), Some("Patient".into()));
        assert_eq!(suggest("a", ["b"]), None, "a word of one letter is not a slip of another");
    }
}
