//! The layout of files: two blanks for each level, none at the ends of lines, one line end at the end. What a file says never changes.

use saphyr_parser::{Event, Parser};

/// The file laid out, or as it is where it cannot be read or would say something else.
pub fn layout(text: &str) -> String {
    let Some(said) = events(text) else { return text.to_owned() };
    let same = |done: &String| events(done).is_some_and(|e| e == said);
    indented(text).filter(same).or_else(|| Some(trimmed(text)).filter(same)).unwrap_or_else(|| text.to_owned())
}

fn events(text: &str) -> Option<Vec<Event<'_>>> {
    Parser::new_from_str(text).map(|event| event.ok().map(|(event, _)| event)).collect()
}

/// Without blanks at the ends of lines and lines at the end.
fn trimmed(text: &str) -> String {
    let mut out: String = text.lines().map(|line| format!("{}\n", line.trim_end_matches([' ', '\t', '\r']))).collect();
    while out.ends_with("\n\n") {
        out.pop();
    }
    out
}

/// A level of indentation: as it was, and as it becomes.
type Level = (usize, usize);

#[derive(Default)]
struct Layout {
    out: String,
    levels: Vec<Level>,
    /// Comments on lines of their own, which go with the line below.
    comments: Vec<(usize, String)>,
    /// Braces and brackets that are open, the quote that is, and how far their first line was moved.
    open: usize,
    quote: Option<char>,
    moved: Level,
    /// Inside a block scalar: the level of its key, and that of its text once it is known.
    block: Option<(Level, Option<Level>)>,
}

/// `None` where the levels cannot be told.
fn indented(text: &str) -> Option<String> {
    let trimmed = trimmed(text);
    let mut layout = Layout::default();
    for line in trimmed.lines() {
        layout.line(line)?;
    }
    layout.comments_at(None);
    Some(layout.out)
}

impl Layout {
    fn write(&mut self, indent: usize, content: &str) {
        if !content.is_empty() {
            self.out.extend(std::iter::repeat_n(' ', indent));
            self.out.push_str(content);
        }
        self.out.push('\n');
    }

    fn comments_at(&mut self, below: Option<Level>) {
        for (old, comment) in std::mem::take(&mut self.comments) {
            let known = below.into_iter().chain(self.levels.iter().rev().copied()).find(|(was, _)| *was == old);
            let new = known.or(below).map_or(old, |(_, new)| new);
            self.write(new, &comment);
        }
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let content = line.trim_start_matches(' ');
        let old = line.len() - content.len();
        if let Some((key, text)) = self.block {
            if content.is_empty() {
                self.write(0, "");
                return Some(());
            }
            if old > key.0 {
                let text = text.unwrap_or((old, key.1 + 2));
                self.block = Some((key, Some(text)));
                self.write(text.1 + old.checked_sub(text.0)?, content);
                return Some(());
            }
            self.block = None;
        }
        if self.open > 0 || self.quote.is_some() {
            // Lines that go on keep their place below the first one.
            let (was, is) = self.moved;
            self.write((old + is).checked_sub(was)?, content);
            self.scan(content);
            return Some(());
        }
        if content.is_empty() || content.starts_with('#') {
            self.comments.push((old, content.to_owned()));
            return Some(());
        }
        if content == "---" || content.starts_with("--- ") {
            self.comments_at(Some((0, 0)));
            self.levels.clear();
            self.write(0, content);
            return Some(());
        }
        while self.levels.last().is_some_and(|(was, _)| *was > old) && self.levels.len() > 1 {
            self.levels.pop();
        }
        let new = match self.levels.last().copied() {
            None => 0,
            Some((was, is)) if was == old => is,
            Some((was, is)) if was < old => is + 2,
            Some(_) => return None,
        };
        if self.levels.last().is_none_or(|(was, _)| *was != old) {
            self.levels.push((old, new));
        }
        self.comments_at(Some((old, new)));
        // Behind a dash a body begins.
        let (mut rest, mut out, mut key) = (content, String::new(), (old, new));
        while let Some(inner) = rest.strip_prefix("- ") {
            let inner = inner.trim_start_matches(' ');
            let at = old + (content.len() - inner.len());
            out.push_str("- ");
            key = (at, key.1 + 2);
            self.levels.push(key);
            rest = inner;
        }
        out.push_str(rest);
        self.write(new, &out);
        self.moved = (old, new);
        self.scan(rest);
        if let Some(header) = rest.split(" #").next().map(str::trim_end).and_then(|r| r.rsplit([' ', ':']).next())
            && header.starts_with(['|', '>'])
            && self.open == 0
            && self.quote.is_none()
        {
            if header.bytes().any(|b| b.is_ascii_digit()) {
                return None;
            }
            // The text of a block may begin at the level of a dash's key.
            let parent = if rest.starts_with(['|', '>']) { (old, new) } else { key };
            self.block = Some((parent, None));
        }
        Some(())
    }

    /// Which braces, brackets and quotes are open behind this part of a line.
    fn scan(&mut self, content: &str) {
        let mut before = ' ';
        let mut chars = content.chars().peekable();
        while let Some(c) = chars.next() {
            match (self.quote, c) {
                (Some('"'), '\\') => drop(chars.next()),
                (Some(q), c) if q == c => self.quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') if matches!(before, ' ' | '[' | '{' | ',' | '(') => self.quote = Some(c),
                (None, '#') if before == ' ' => return,
                (None, '{' | '[') => self.open += 1,
                (None, '}' | ']') => self.open = self.open.saturating_sub(1),
                _ => {}
            }
            before = c;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::layout;
    use proptest::prelude::*;

    #[test]
    fn levels_become_two_blanks_and_ends_are_clean() {
        let given = "map: PID -> Patient   \n# of a name\nname:\n    # one\n    -   use: \"x\"\n        given: PID-5\n    - $value: >\n          if PID-5 valued\n            then PID-5\nperiod: { start: A,\n          end: B }\n\n\n";
        let laid = "map: PID -> Patient\n# of a name\nname:\n  # one\n  - use: \"x\"\n    given: PID-5\n  - $value: >\n      if PID-5 valued\n        then PID-5\nperiod: { start: A,\n          end: B }\n";
        assert_eq!(layout(given), laid);
        assert_eq!(layout(laid), laid);
        let broken = "map: PID -> Patient \n x: [\n";
        assert_eq!(layout(broken), broken);
    }

    #[test]
    fn shipped_files_are_laid_out() {
        fn all(folder: &std::path::Path, wrong: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    all(&path, wrong);
                } else if path.extension().is_some_and(|e| e == "yaml") {
                    let text = std::fs::read_to_string(&path).expect("a file");
                    if layout(&text) != text {
                        wrong.push(path.display().to_string());
                    }
                }
            }
        }
        let mut wrong = Vec::new();
        all(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("routes"), &mut wrong);
        assert!(wrong.is_empty(), "kiln check --fix would lay these out: {wrong:?}");
    }

    proptest! {
        #[test]
        fn it_never_fails_and_is_done_at_once(text in "([ ]{0,4}(- |a: |b:|#|\"|x|[{}\\[\\],>|'])*\n){0,12}") {
            let once = layout(&text);
            prop_assert_eq!(layout(&once), once);
        }
    }
}
