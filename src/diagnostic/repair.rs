//! The change that a diagnostic offers: its fix, or the word that was probably meant in place of the one that stands there.

use crate::diagnostic::{Diagnostic, Sources, Span, suggest};

impl Diagnostic {
    /// What to write, and in place of which bytes; `None` where there is no single cure.
    pub fn repair(&self, sources: &Sources) -> Option<(Span, String)> {
        if let Some(fix) = &self.fix {
            return Some((self.span, fix.clone()));
        }
        let told = self.help.iter().chain([&self.label]).find_map(|t| t.split_once("did you mean "))?.1;
        let meant = told.split('?').next()?.trim_matches(['`', '"']);
        let text = sources.text(self.span.source).get(self.span.start as usize..self.span.end as usize)?;
        // The span may hold more than the word.
        let in_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '[' | ']' | '^');
        let mut at = 0;
        for word in text.split(|c: char| !in_word(c)) {
            let start = at;
            at += word.len() + text.get(at + word.len()..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
            if !word.is_empty() && suggest(word, [meant]).is_some() {
                let begin = self.span.start + u32::try_from(start).ok()?;
                return Some((Span { start: begin, end: begin + u32::try_from(word.len()).ok()?, ..self.span }, meant.to_owned()));
            }
        }
        None
    }
}

impl Diagnostic {
    /// The repair, if nothing else can have been meant: the same letters in another case or form, a cure of which there is only one, or a word of some
    /// length with a single slip. A short word may be a slip of many.
    pub fn certain_repair(&self, sources: &Sources) -> Option<(Span, String)> {
        let (span, new) = self.repair(sources)?;
        let old = sources.text(span.source).get(span.start as usize..span.end as usize)?;
        let letters = |t: &str| t.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
        let guessed = self.help.iter().chain([&self.label]).any(|t| t.contains("did you mean "));
        let slips = strsim::osa_distance(&letters(old), &letters(&new));
        let long = letters(old).chars().count();
        (!guessed || slips == 0 || (slips == 1 && long >= 4) || (slips == 2 && long >= 8)).then_some((span, new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_was_meant_takes_the_place_of_the_one_that_stands_there() {
        let mut sources = Sources::default();
        let source = sources.add("a.yaml", "birthDat: fisrt(PID-7)");
        let key = Diagnostic::error("K301", Span { source, start: 0, end: 8 }, "x").help("did you mean birthDate?");
        assert_eq!(key.repair(&sources), Some((Span { source, start: 0, end: 8 }, "birthDate".to_owned())));
        let call = Diagnostic::error("K205", Span { source, start: 10, end: 22 }, "x").help("did you mean first?");
        assert_eq!(call.repair(&sources), Some((Span { source, start: 10, end: 15 }, "first".to_owned())));
        let none = Diagnostic::error("K301", Span { source, start: 0, end: 8 }, "x").help("Patient has: id");
        assert_eq!(none.repair(&sources), None);
    }
}
