//! Did you mean: the candidate that is nearest to a word somebody mistyped.

/// The candidate that `word` was probably meant to be, or `None` when nothing is near enough. Case is ignored; of equally near ones the first wins.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let mut best: Option<(&'a str, usize)> = None;
    for candidate in candidates {
        let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
        // A third of the word may be wrong, and one letter of a short word.
        let allowed = (word.chars().count().max(candidate.chars().count()) / 3).max(1);
        if candidate != word && distance <= allowed && distance < candidate.chars().count() && best.is_none_or(|(_, d)| distance < d) {
            best = Some((candidate, distance));
        }
    }
    best.map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(suggest("resorces", ["resources", "route", "reply"]), Some("resources"));
        assert_eq!(suggest("birthdate", ["birthDate", "name"]), Some("birthDate"));
        assert_eq!(suggest("uqdate", ["create", "update", "merge"]), Some("update"));
        assert_eq!(suggest("xyz", ["resources", "on"]), None);
        assert_eq!(suggest("a", ["b"]), None, "a word of one letter is not a slip of another");
    }
}
