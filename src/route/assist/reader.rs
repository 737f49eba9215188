//! How the outline of a file is read: indentation, braces, quotes and blocks, whether they are finished or not.

use crate::route::assist::outline::{Entry, Outline, Quote, Section};
use std::ops::Range;

/// Bodies and lists within braces and brackets may nest this deep; what is deeper is one value.
const DEPTH_MAX: usize = 40;

/// Reads one text, section by section.
pub(crate) struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    out: Outline,
    stack: Vec<usize>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), out: Outline::default(), stack: Vec::new() }
    }

    pub(crate) fn finish(self) -> Outline {
        self.out
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(b'\n')
    }

    pub(crate) fn section(&mut self, range: Range<usize>) {
        self.stack.clear();
        self.out.sections.push(Section { range: range.clone(), roots: Vec::new() });
        let mut at = range.start;
        while at < range.end {
            let end = self.line_end(at, range.end);
            let mut content = at;
            while content < end && matches!(self.byte(content), b' ' | b'\t') {
                content += 1;
            }
            let skipped = content >= end
                || matches!(self.byte(content), b'#' | b'\r')
                || (at == range.start && self.text.get(at..end).is_some_and(|l| l.starts_with("---")));
            let next = if skipped { end + 1 } else { self.line(content, content - at, end, range.end) };
            at = next.max(at + 1);
        }
    }

    fn line_end(&self, at: usize, end: usize) -> usize {
        self.bytes.get(at..end).and_then(|rest| rest.iter().position(|b| *b == b'\n')).map_or(end, |n| at + n)
    }

    /// The end of what a line says, without a comment and blanks.
    fn said(&self, from: usize, end: usize) -> usize {
        let mut quoted = false;
        let mut at = from;
        while at < end {
            match self.byte(at) {
                b'"' => quoted = !quoted,
                b'#' if !quoted && (at == from || matches!(self.byte(at - 1), b' ' | b'\t')) => break,
                _ => {}
            }
            at += 1;
        }
        while at > from && matches!(self.byte(at - 1), b' ' | b'\t' | b'\r') {
            at -= 1;
        }
        at
    }

    fn add(&mut self, parent: Option<usize>, entry: Entry) -> usize {
        let n = self.out.entries.len();
        self.out.entries.push(Entry { parent, ..entry });
        match parent.and_then(|p| self.out.entries.get_mut(p)) {
            Some(parent) => parent.children.push(n),
            None => {
                if let Some(section) = self.out.sections.last_mut() {
                    section.roots.push(n);
                }
            }
        }
        n
    }

    /// One line of block style; the place where the next one begins.
    fn line(&mut self, mut content: usize, mut column: usize, end: usize, limit: usize) -> usize {
        while self.byte(content) == b'-' && (content + 1 >= end || matches!(self.byte(content + 1), b' ' | b'\r')) {
            self.pop(|e| e.column > column || (e.column == column && e.list));
            let zone = (content + 1).min(end)..self.said(content + 1, end).max((content + 1).min(end));
            let parent = self.stack.last().copied();
            let n = self.add(parent, Entry { list: true, column, zone: zone.start..end, ..blank(content..content) });
            self.stack.push(n);
            let start = content;
            content += 1;
            while content < end && self.byte(content) == b' ' {
                content += 1;
            }
            column += content - start;
            if content >= zone.end {
                return end + 1;
            }
        }
        let said = self.said(content, end);
        let dashed = self
            .stack
            .last()
            .copied()
            .filter(|n| self.out.entry(*n).is_some_and(|e| e.list && e.children.is_empty() && e.zone.end == end && e.value.is_empty()));
        if let Some((key, colon)) = self.key(content, said) {
            self.pop(|e| e.column >= column);
            let parent = self.stack.last().copied();
            let n = self.add(parent, Entry { column, zone: (colon + 1).min(end)..end, ..blank(key) });
            self.stack.push(n);
            return self.value(n, colon + 1, end, limit, column);
        }
        if let Some(n) = dashed {
            return self.value(n, content, end, limit, column.saturating_sub(1));
        }
        let continues = self.stack.iter().rev().copied().find(|n| self.out.entry(*n).is_some_and(|e| e.column < column));
        if let Some(e) = continues.and_then(|n| self.out.entries.get_mut(n))
            && !e.value.is_empty()
            && e.quote == Quote::Plain
            && e.children.is_empty()
        {
            e.value.end = said;
            e.zone.end = end;
            return end + 1;
        }
        self.pop(|e| e.column >= column);
        let parent = self.stack.last().copied();
        let n = self.add(parent, Entry { bare: true, column, zone: said..said, ..blank(content..said) });
        self.stack.push(n);
        end + 1
    }

    fn pop(&mut self, gone: impl Fn(&Entry) -> bool) {
        while self.stack.last().and_then(|n| self.out.entry(*n)).is_some_and(&gone) {
            self.stack.pop();
        }
    }

    /// The key's text and its colon, if the line begins with one.
    fn key(&self, from: usize, end: usize) -> Option<(Range<usize>, usize)> {
        let first = self.byte(from);
        if matches!(first, b'{' | b'[' | b'>' | b'|') {
            return None;
        }
        if matches!(first, b'"' | b'\'') {
            let close = (from + 1..end).find(|n| self.byte(*n) == first)?;
            return (self.byte(close + 1) == b':').then_some((from + 1..close, close + 1));
        }
        let colon = (from..end).find(|n| self.byte(*n) == b':' && (n + 1 >= end || matches!(self.byte(n + 1), b' ' | b'\t' | b'\r')))?;
        // A colon inside a string is none.
        let quotes = self.bytes.get(from..colon).unwrap_or_default().iter().filter(|b| **b == b'"').count();
        let mut stop = colon;
        while stop > from && self.byte(stop - 1) == b' ' {
            stop -= 1;
        }
        (quotes % 2 == 0).then_some((from..stop, colon))
    }

    /// A value in block style; the place where the next line begins.
    fn value(&mut self, n: usize, from: usize, end: usize, limit: usize, column: usize) -> usize {
        let mut at = from;
        while at < end && matches!(self.byte(at), b' ' | b'\t') {
            at += 1;
        }
        let said = self.said(at, end);
        if at >= said {
            let stop = said.max(from).min(end);
            self.set(n, stop..stop, Quote::Plain, from.min(end)..end);
            return end + 1;
        }
        match self.byte(at) {
            b'{' | b'[' => {
                let close = self.flow(n, at, limit, column, 0);
                self.line_end(close.min(limit), limit) + 1
            }
            b'>' | b'|' => {
                let (mut next, mut last) = (end + 1, said);
                let mut first = None;
                while next < limit {
                    let stop = self.line_end(next, limit);
                    let content = (next..stop).find(|n| !matches!(self.byte(*n), b' ' | b'\t' | b'\r'));
                    if let Some(content) = content {
                        if content - next <= column {
                            break;
                        }
                        first.get_or_insert(content);
                        last = stop;
                    }
                    next = stop + 1;
                }
                let first = first.unwrap_or(last);
                self.set(n, first..last.max(first), Quote::Block, from..last.max(first));
                next
            }
            quote @ (b'"' | b'\'') => {
                let close = self.close(at, end, quote);
                self.set(n, at + 1..close.min(end).max((at + 1).min(end)), Quote::Quoted, from..end);
                end + 1
            }
            _ => {
                self.set(n, at..said, Quote::Plain, from..end);
                end + 1
            }
        }
    }

    fn set(&mut self, n: usize, value: Range<usize>, quote: Quote, zone: Range<usize>) {
        if let Some(e) = self.out.entries.get_mut(n) {
            (e.value, e.quote, e.zone) = (value, quote, zone);
        }
    }

    /// The quote that closes the one at `at`, on this line, or its end.
    fn close(&self, at: usize, end: usize, quote: u8) -> usize {
        let mut n = at + 1;
        while n < end {
            match self.byte(n) {
                b'\\' if quote == b'"' => n += 1,
                b if b == quote => return n,
                _ => {}
            }
            n += 1;
        }
        end
    }

    /// Braces or brackets of the entry `n`, from their opening on; the place behind the closing. What is never closed ends where a line begins that
    /// is not deeper than `column`.
    fn flow(&mut self, n: usize, open: usize, limit: usize, column: usize, depth: usize) -> usize {
        let mapping = self.byte(open) == b'{';
        let mut at = open + 1;
        let close = loop {
            at = match self.gap(at, limit, column) {
                Ok(at) => at,
                Err(end) => break end,
            };
            match self.byte(at) {
                b'}' | b']' => break at,
                b',' => at += 1,
                _ => at = self.flow_entry(n, at, limit, column, mapping, depth).max(at + 1),
            }
        };
        let end = close.min(limit);
        if let Some(e) = self.out.entries.get_mut(n) {
            e.inner = Some((open + 1).min(end)..end);
            e.value = open..(end + 1).min(limit);
        }
        if matches!(self.byte(end), b'}' | b']') { end + 1 } else { end }
    }

    /// Behind blanks, line ends and comments; an error where an unclosed flow is given up.
    fn gap(&self, mut at: usize, limit: usize, column: usize) -> Result<usize, usize> {
        while at < limit {
            match self.byte(at) {
                b' ' | b'\t' | b'\r' => at += 1,
                b'#' => at = self.line_end(at, limit),
                b'\n' => {
                    let stop = self.line_end(at + 1, limit);
                    if let Some(content) = (at + 1..stop).find(|n| !matches!(self.byte(*n), b' ' | b'\t' | b'\r'))
                        && content - (at + 1) <= column
                        && !matches!(self.byte(content), b'}' | b']' | b'#')
                    {
                        return Err(at);
                    }
                    at += 1;
                }
                _ => return Ok(at),
            }
        }
        Err(limit)
    }

    /// One entry of braces or brackets; the place behind it.
    fn flow_entry(&mut self, parent: usize, at: usize, limit: usize, column: usize, mapping: bool, depth: usize) -> usize {
        if matches!(self.byte(at), b'{' | b'[') {
            let n = self.add(Some(parent), Entry { list: true, flow: true, brackets: !mapping, zone: at..at, ..blank(at..at) });
            return self.nested(n, at, limit, column, depth);
        }
        let (stop, colon) = self.scan(at, limit, true);
        if let Some(colon) = colon {
            let key = self.trimmed(at, colon);
            let (stop, _) = self.scan(colon + 1, limit, false);
            let n = self.add(Some(parent), Entry { flow: true, zone: colon + 1..stop, ..blank(key) });
            let mut value = colon + 1;
            while value < stop && matches!(self.byte(value), b' ' | b'\t') {
                value += 1;
            }
            if matches!(self.byte(value), b'{' | b'[') {
                return self.nested(n, value, limit, column, depth);
            }
            self.flow_value(n, value, stop);
            return stop;
        }
        if mapping {
            let key = self.trimmed(at, stop);
            self.add(Some(parent), Entry { bare: true, flow: true, zone: stop..stop, ..blank(key) });
        } else {
            let n = self.add(Some(parent), Entry { list: true, flow: true, brackets: true, zone: at..stop, ..blank(at..at) });
            self.flow_value(n, at, stop);
        }
        stop
    }

    fn nested(&mut self, n: usize, at: usize, limit: usize, column: usize, depth: usize) -> usize {
        if depth < DEPTH_MAX {
            return self.flow(n, at, limit, column, depth + 1);
        }
        let end = self.line_end(at, limit);
        self.set(n, at..end, Quote::Plain, at..end);
        end
    }

    fn flow_value(&mut self, n: usize, value: usize, stop: usize) {
        let quote = self.byte(value);
        if value < stop && matches!(quote, b'"' | b'\'') {
            let close = self.close(value, stop, quote);
            if let Some(e) = self.out.entries.get_mut(n) {
                (e.value, e.quote) = (value + 1..close.max(value + 1).min(stop.max(value + 1)), Quote::Quoted);
            }
        } else {
            let range = self.trimmed(value.min(stop), stop);
            if let Some(e) = self.out.entries.get_mut(n) {
                e.value = range;
            }
        }
    }

    fn trimmed(&self, from: usize, to: usize) -> Range<usize> {
        let (mut from, mut to) = (from, to.max(from));
        while to > from && self.byte(to - 1).is_ascii_whitespace() {
            to -= 1;
        }
        if to > from + 1 && matches!(self.byte(from), b'"' | b'\'') && self.byte(to - 1) == self.byte(from) {
            (from, to) = (from + 1, to - 1);
        }
        from..to
    }

    /// To the end of a plain or quoted text in flow style, and its colon if one is looked for. Commas inside parentheses belong to the text: YAML
    /// thinks otherwise, and the checker says so.
    fn scan(&self, from: usize, limit: usize, key: bool) -> (usize, Option<usize>) {
        let (mut at, mut parens, mut brackets) = (from, 0usize, 0usize);
        while at < limit {
            match self.byte(at) {
                b'\n' => return (at, None),
                quote @ (b'"' | b'\'') => {
                    let end = self.line_end(at, limit);
                    if quote == b'"' || self.bytes.get(from..at).is_some_and(|b| b.iter().all(u8::is_ascii_whitespace)) {
                        at = self.close(at, end, quote).min(end.saturating_sub(1)).max(at);
                    }
                }
                b'(' => parens += 1,
                b')' => parens = parens.saturating_sub(1),
                b'[' if at > from && !self.byte(at - 1).is_ascii_whitespace() => brackets += 1,
                b']' if brackets > 0 => brackets -= 1,
                b',' if parens == 0 => return (at, None),
                b'}' | b']' => return (at, None),
                b'{' | b'[' if !key => return (at, None),
                b':' if key && matches!(self.byte(at + 1), b' ' | b'\t' | b'\r' | b'\n' | b',' | b'}' | b']') => return (at, Some(at)),
                b'#' if at > from && self.byte(at - 1) == b' ' => return (at, None),
                _ => {}
            }
            at += 1;
        }
        (limit, None)
    }
}

fn blank(key: Range<usize>) -> Entry {
    let end = key.end;
    Entry {
        parent: None,
        children: Vec::new(),
        key,
        list: false,
        bare: false,
        value: end..end,
        zone: end..end,
        quote: Quote::Plain,
        inner: None,
        brackets: false,
        flow: false,
        column: 0,
    }
}
