//! What differs between the site that runs and the one that was read: for the log, and for what only a restart changes.

use crate::diagnostic::Sources;
use crate::engine::Routes;
use crate::site::Site;
use std::collections::BTreeMap;

/// What becomes live, a few words each: `+ listener lab`, `~ target main`, `- file routes/old.yaml`. Names only, no values.
pub(crate) fn differences(old: &Site, new: &Site, old_routes: &Routes, new_routes: &Routes) -> Vec<String> {
    let mut found = Vec::new();
    let listeners = |site: &Site| site.listeners.iter().map(|l| (l.socket.name.to_string(), l.clone())).collect::<BTreeMap<_, _>>();
    compare("listener", &listeners(old), &listeners(new), &mut found);
    let targets = |site: &Site| site.targets.iter().map(|t| (t.name.clone(), t.clone())).collect::<BTreeMap<_, _>>();
    compare("target", &targets(old), &targets(new), &mut found);
    // A route's line in a file says nothing about whether it does the same as before; its name does.
    let routes = |routes: &Routes| routes.set.routes().map(|(_, info)| (info.name.to_string(), info.targets.clone())).collect::<BTreeMap<_, _>>();
    compare("route", &routes(old_routes), &routes(new_routes), &mut found);
    compare("file", &files(&old_routes.sources), &files(&new_routes.sources), &mut found);
    for (key, changed) in [("use", old.overlays != new.overlays), ("on-removal", old.on_removal != new.on_removal), ("reload", old.reload != new.reload)] {
        if changed {
            found.push(format!("~ {key}"));
        }
    }
    found
}

fn files(sources: &Sources) -> BTreeMap<String, String> {
    sources.ids().filter(|id| !sources.shipped(*id)).map(|id| (sources.path(id).to_owned(), sources.text(id).to_owned())).collect()
}

fn compare<T: PartialEq>(kind: &str, old: &BTreeMap<String, T>, new: &BTreeMap<String, T>, found: &mut Vec<String>) {
    for (name, was) in old {
        match new.get(name) {
            None => found.push(format!("- {kind} {name}")),
            Some(is) if is != was => found.push(format!("~ {kind} {name}")),
            Some(_) => {}
        }
    }
    found.extend(new.keys().filter(|name| !old.contains_key(*name)).map(|name| format!("+ {kind} {name}")));
}

/// Keys whose new value counts after a restart only.
pub(crate) fn after_restart(running: &Site, new: &Site) -> Vec<&'static str> {
    let keys = [
        ("journal.path", running.journal.path != new.journal.path),
        ("journal.keep", running.journal.keep != new.journal.keep),
        ("journal.keep-bytes", running.journal.keep_bytes != new.journal.keep_bytes),
        ("journal.low-water", running.journal.low_water != new.journal.low_water),
        ("journal.high-water", running.journal.high_water != new.journal.high_water),
        ("journal.backlog-max", running.journal.backlog_max != new.journal.backlog_max),
        ("journal.backlog-resume", running.journal.backlog_resume != new.journal.backlog_resume),
        ("console.listen", running.console != new.console),
        ("metrics.listen", running.metrics != new.metrics),
        ("log", running.log != new.log),
    ];
    keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}
