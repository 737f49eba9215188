//! Bodies change line by line.

use crate::diagnostic::{Diagnostic, suggest};
use crate::route::{Body, Expr, ExprKind, Item, Key, Line, Literal};

/// Applies a body's lines and `$` keys to an earlier body.
pub(super) fn change_body(base: &mut Body, own: Body, faults: &mut Vec<Diagnostic>) {
    for line in own.lines {
        change_line(base, line, faults);
    }
    set(&mut base.each, own.each);
    set(&mut base.from, own.from);
    set(&mut base.when, own.when);
    set(&mut base.value, own.value);
    set(&mut base.save, own.save);
    set(&mut base.missing, own.missing);
    set(&mut base.search, own.search);
    set(&mut base.at, own.at);
    set(&mut base.none, own.none);
    set(&mut base.several, own.several);
    set(&mut base.cache, own.cache);
    set(&mut base.timeout, own.timeout);
    set(&mut base.continues, own.continues);
    set(&mut base.name, own.name);
    if let Some(own) = own.first {
        match &mut base.first {
            Some(first) => {
                change_items(first, own, faults);
            }
            none => *none = Some(own),
        }
    }
    keyed(&mut base.lets, own.lets);
    keyed(&mut base.takes, own.takes);
    keyed(&mut base.with, own.with);
    keyed(&mut base.merge, own.merge);
    if !own.maps.is_empty() {
        base.maps = own.maps;
    }
    if !own.copy.is_empty() {
        base.copy = own.copy;
    }
    if let Some(own) = own.initial {
        match &mut base.initial {
            Some(initial) => change_body(initial, *own, faults),
            none => *none = Some(own),
        }
    }
}

/// Named bodies: changed, added, or taken away by `name: nothing`.
pub(super) fn change_named(base: &mut Vec<(Key, Body)>, own: Vec<(Key, Body)>, what: &str, faults: &mut Vec<Diagnostic>) {
    for (key, body) in own {
        let at = base.iter().position(|(k, _)| k.text == key.text);
        let removed = body.lines.is_empty() && body.maps.is_empty() && body.value.as_deref().is_some_and(nothing);
        match at {
            Some(at) if removed => drop(base.remove(at)),
            Some(at) => base.iter_mut().skip(at).take(1).for_each(|(_, b)| change_body(b, body.clone(), faults)),
            None if removed => {
                let fault = Diagnostic::warning("K706", key.span, format!("there is no {what} `{}` to take away", key.text));
                faults.push(fault.help("leave this line out"));
            }
            None => base.push((key, body)),
        }
    }
}

fn change_line(base: &mut Body, line: Line, faults: &mut Vec<Diagnostic>) {
    // A resource with maps has more than its lines show: there `nothing` and `+` also act on what the maps make.
    let resource = !base.maps.is_empty();
    let at = base.lines.iter().rposition(|l| l.element.text == line.element.text);
    let Some(old) = at.and_then(|at| base.lines.get_mut(at)) else {
        if nothing(&line.item) && !resource {
            let names = base.lines.iter().map(|l| l.element.text.as_str());
            let fault = Diagnostic::warning("K706", line.element.span, format!("there is no line `{}` to take away", line.element.text));
            faults.push(match suggest(&line.element.text, names) {
                Some(meant) => fault.help(format!("did you mean `{meant}`?")).fix_if(meant.only()),
                None => fault.help("what this was to take away is gone; leave the line out"),
            });
        } else {
            base.lines.push(Line { append: line.append && resource, ..line });
        }
        return;
    };
    if line.append {
        let mut items = listed(std::mem::replace(&mut old.item, Item::List(Vec::new(), line.item.span())));
        items.extend(listed(line.item));
        if let Item::List(list, _) = &mut old.item {
            *list = items;
        }
        return;
    }
    if nothing(&line.item) && !resource {
        base.lines.retain(|l| l.element.text != line.element.text);
        return;
    }
    match (&mut old.item, line.item) {
        (Item::Body(body), Item::Body(own)) => change_body(body, own, faults),
        (Item::List(items, _), Item::List(own, _)) => {
            if change_items(items, own, faults) {
                old.element = line.element;
            }
        }
        (item, own) => {
            *item = own;
            old.append = false;
            old.element = line.element;
        }
    }
}

/// A list replaces, unless all of its entries name one of the base's. True if it replaced.
fn change_items(base: &mut Vec<Item>, own: Vec<Item>, faults: &mut Vec<Diagnostic>) -> bool {
    let all_named = !own.is_empty() && own.iter().all(|i| name(i).is_some());
    let names: Vec<String> = base.iter().filter_map(|i| name(i).map(|k| k.text.clone())).collect();
    if !all_named || names.is_empty() {
        *base = own;
        return true;
    }
    for item in own {
        let Item::Body(own) = item else { continue };
        let Some(key) = own.name.clone() else { continue };
        match base.iter_mut().find(|i| name(i).is_some_and(|k| k.text == key.text)) {
            Some(Item::Body(body)) => change_body(body, own, faults),
            _ => {
                let fault = Diagnostic::error("K706", key.span, format!("no entry of this list is named `{}`", key.text));
                let list = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                faults.push(match suggest(&key.text, names.iter().map(String::as_str)) {
                    Some(meant) => fault.help(format!("did you mean `{meant}`?")).fix_if(meant.only()),
                    None => fault.help(format!("its entries are named {list}; a new entry is added by `+:`")),
                });
            }
        }
    }
    false
}

fn name(item: &Item) -> Option<&Key> {
    match item {
        Item::Body(body) => body.name.as_ref(),
        _ => None,
    }
}

fn listed(item: Item) -> Vec<Item> {
    match item {
        Item::List(items, _) => items,
        item => vec![item],
    }
}

fn nothing(item: &Item) -> bool {
    matches!(item, Item::Expr(Expr { kind: ExprKind::Literal(Literal::Nothing), .. }))
}

fn set<T>(base: &mut Option<T>, own: Option<T>) {
    if own.is_some() {
        *base = own;
    }
}

fn keyed<T>(base: &mut Vec<(Key, T)>, own: Vec<(Key, T)>) {
    for (key, value) in own {
        match base.iter_mut().find(|(k, _)| k.text == key.text) {
            Some(entry) => *entry = (key, value),
            None => base.push((key, value)),
        }
    }
}
