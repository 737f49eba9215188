//! A message of the journal, with the route sets that its deliveries began with.

use crate::cli::Exit;
use crate::cli::explain_subject::Subject;
use crate::cli::journal;
use crate::cli::paint::{err, plain};
use crate::cli::route_choice::{self, Chosen};
use crate::engine::Routes;
use crate::exchange::{DeliveryId, MessageId};
use crate::fhir::Answers;
use crate::hl7v2::Message;
use crate::journal::{JournalError, MessageRecord, Reader};
use crate::route::RouteSet;
use crate::site::ListenerSite;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Opens the journal that was named, or the site's.
pub(crate) fn reader(folder: Option<&Path>, chosen: &Chosen) -> Result<Reader, Exit> {
    let folder = match (folder, &chosen.site) {
        (Some(folder), _) => folder.to_path_buf(),
        (None, Some(site)) => site.journal.path.clone(),
        (None, None) => {
            err!("kiln: there is no kiln.yaml here; say --config FILE or --journal FOLDER");
            return Err(Exit::CouldNot);
        }
    };
    journal::open(&folder).ok_or(Exit::CouldNot)
}

/// The listener that a message came by, as the site file says today.
pub(crate) fn listener<'c>(record: &MessageRecord, chosen: &'c Chosen) -> Option<&'c ListenerSite> {
    let listeners = chosen.site.as_ref().map(|s| s.listeners.as_slice()).unwrap_or_default();
    listeners.iter().find(|l| *l.socket.name == *record.envelope.listener)
}

/// The message of that number. Each delivery is shown by the route set that it began with; one that has not begun takes today's.
pub(crate) fn subject(number: u64, folder: Option<&Path>, chosen: &Chosen) -> Result<Subject, Exit> {
    let reader = reader(folder, chosen)?;
    let record = match reader.show(MessageId(number)) {
        Ok(record) => record,
        Err(JournalError::Missing) => {
            err!("kiln: there is no message {number} in this journal");
            return Err(Exit::Found);
        }
        Err(e) => {
            err!("kiln: {}", plain(&e.to_string()));
            return Err(Exit::CouldNot);
        }
    };
    let listener = listener(&record, chosen);
    let name = format!("message {number}");
    let message = Message::parse(record.content().expose().clone(), &route_choice::parse_options(listener)).map_err(|fault| {
        err!("kiln: {name} cannot be read: {}: {}", fault.location.path(), fault.text);
        Exit::Found
    })?;
    let mut subject = Subject { name, message, runs: Vec::new(), notes: Vec::new() };
    let received = record.envelope.received;
    if let Some(route) = chosen.only {
        subject.run(&chosen.set, &chosen.sources, route, listener, received, record.id, &kept(&reader, &record, None, &chosen.set.info(route).name));
        return Ok(subject);
    }
    if record.deliveries.is_empty() {
        for route in subject.wanting(&chosen.set, listener) {
            subject.run(&chosen.set, &chosen.sources, route, listener, received, record.id, &kept(&reader, &record, None, &chosen.set.info(route).name));
        }
        return Ok(subject);
    }
    let mut stored: HashMap<String, Routes> = HashMap::new();
    let mut shown: Vec<(String, &str, Answers)> = Vec::new();
    for delivery in &record.deliveries {
        let hash = delivery.program.clone().unwrap_or_else(|| chosen.set.hash().to_owned());
        // Deliveries of one route to several targets are the same, unless each was told something else.
        let answers = kept(&reader, &record, Some(delivery.id), &delivery.route);
        if shown.iter().any(|(h, route, told)| *h == hash && *route == &*delivery.route && *told == answers) {
            continue;
        }
        shown.push((hash.clone(), &delivery.route, answers.clone()));
        let (set, sources): (Arc<RouteSet>, _) = if hash == chosen.set.hash() {
            (Arc::clone(&chosen.set), Arc::clone(&chosen.sources))
        } else {
            let routes = match stored.get(&hash) {
                Some(routes) => routes.clone(),
                None => match load(&reader, &hash) {
                    Ok(routes) => stored.entry(hash.clone()).or_insert(routes).clone(),
                    Err(fault) => {
                        err!("kiln: delivery {} by route {}: {fault}", delivery.id.number, delivery.route);
                        continue;
                    }
                },
            };
            (routes.set, Arc::new(routes.sources))
        };
        match set.named(&delivery.route) {
            Some(route) => subject.run(&set, &sources, route, listener, received, record.id, &answers),
            None => err!("kiln: delivery {}: its route set has no route {}", delivery.id.number, delivery.route),
        }
    }
    if subject.runs.is_empty() { Err(Exit::CouldNot) } else { Ok(subject) }
}

/// What the route's questions found when the message was delivered or answered: for that delivery, else for the first of the route that asked.
fn kept(reader: &Reader, record: &MessageRecord, delivery: Option<DeliveryId>, route: &str) -> Answers {
    let of_delivery = || {
        let mut meant = record.deliveries.iter().filter(|d| *d.route == *route && delivery.is_none_or(|id| d.id == id));
        meant.find_map(|d| reader.answers(d.id).ok()?)
    };
    let of_reply = || Some(reader.reply(record.id).ok()??).filter(|reply| reply.route == route).map(|reply| reply.answers);
    of_delivery().or_else(of_reply).and_then(|answers| Answers::from_json(answers.expose())).unwrap_or_default()
}

fn load(reader: &Reader, hash: &str) -> Result<Routes, String> {
    match reader.program(hash) {
        Ok(Some(program)) => Routes::unpack(&program).map_err(|e| e.to_string()),
        Ok(None) => Err(format!("the journal does not have the route set {hash} that it began with")),
        Err(e) => Err(e.to_string()),
    }
}
