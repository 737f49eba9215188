//! Asking for a route: the matches of one search, as many as it wants, and where they go on (<https://hl7.org/fhir/R4/search.html>).

use crate::fhir::{Found, Question, Resume};
use crate::target::fhir::FhirTarget;
use crate::target::fhir::browse::{Next, PageFault, Search, is_match};
use crate::target::{Fault, Retry, Setback};
use reqwest::Url;
use serde_json::Value;
use std::collections::HashSet;

/// So many matches a question without `_count` may have; more are the message's fault.
pub(crate) const MATCHES_MAX: usize = 1_000;

/// So many are asked for at a time.
const PAGE: usize = 200;

impl FhirTarget {
    /// Asks a question, from its beginning or from where an earlier answer ended.
    ///
    /// # Errors
    /// A [`Setback`] that says whose fault it was. Too many matches for a question that wants all are the message's.
    pub async fn ask(&self, question: &Question, resume: Option<&Resume>) -> Result<Found, Setback> {
        let most = question.at_most.unwrap_or(MATCHES_MAX);
        let page_size = question.at_most.unwrap_or(PAGE).min(MATCHES_MAX);
        let mut parameters = question.parameters.clone();
        parameters.push(("_count".to_owned(), page_size.to_string()));
        let next = match resume {
            Some(Resume { link: Some(link), .. }) => Next::Link(self.own_link(link)?),
            Some(Resume { offset: Some(offset), .. }) => Next::Offset(*offset),
            _ => Next::First,
        };
        let before = resume.and_then(|resume| resume.offset).unwrap_or_default();
        let resource_type = question.resource_type.clone();
        let mut search = Search { target: self, resource_type, parameters, page_size, next, seen: HashSet::new(), before, total: None };
        let mut skip = resume.map_or(0, |resume| resume.skip);
        let (mut found, mut base) = (Found::default(), None);
        loop {
            // A server that gives neither a link nor a total has told all that there is.
            if matches!(search.next, Next::Offset(_)) && search.total.is_none() && resume.is_none_or(|r| r.offset.is_none()) {
                break;
            }
            if found.matches.len() >= most && !matches!(search.next, Next::Nothing) {
                found.resume = Some(place(&search.next, 0));
                break;
            }
            let here = place(&search.next, 0);
            let entries = match search.page().await {
                Ok(Some(entries)) => entries,
                Ok(None) | Err(PageFault::NoPages) => break,
                Err(PageFault::Setback(setback)) => return Err(setback),
                Err(PageFault::ElsewhereLink) => return Err(elsewhere()),
            };
            base = base.or_else(|| entries.iter().find_map(Found::base_of));
            let mut nth = 0;
            for entry in entries {
                let of_type = |resource: &Value| resource.get("resourceType").and_then(Value::as_str) == Some(&*question.resource_type);
                let Some(resource) = entry.get("resource") else { continue };
                if !(is_match(&entry) && of_type(resource)) {
                    let included = entry.pointer("/search/mode").and_then(Value::as_str) == Some("include");
                    found.included.extend(included.then(|| resource.clone()));
                    continue;
                }
                nth += 1;
                if nth <= skip {
                    continue;
                }
                if found.matches.len() >= most {
                    // The server gives more at a time than it was asked for.
                    found.resume = Some(Resume { skip: nth - 1, ..here.clone() });
                    break;
                }
                found.matches.push(resource.clone());
            }
            skip = 0;
            if found.resume.is_some() {
                break;
            }
        }
        found.total = search.total;
        found.base = Some(base.unwrap_or_else(|| self.base.clone()));
        if question.at_most.is_none() && found.resume.is_some() {
            return Err(too_many(&question.resource_type));
        }
        Ok(found)
    }

    /// A link that this server gave. What was stored may be of another address that the target had: its credentials go nowhere else.
    fn own_link(&self, link: &str) -> Result<Url, Setback> {
        let base = Url::parse(&self.base).ok();
        match (Url::parse(link), base) {
            (Ok(url), Some(base)) if url.origin() == base.origin() => Ok(url),
            _ => Err(elsewhere()),
        }
    }
}

fn place(next: &Next, skip: usize) -> Resume {
    match next {
        Next::Link(url) => Resume { link: Some(url.to_string()), offset: None, skip },
        Next::Offset(offset) => Resume { link: None, offset: Some(*offset), skip },
        Next::First | Next::Nothing => Resume { link: None, offset: None, skip },
    }
}

fn elsewhere() -> Setback {
    Setback {
        retry: Retry::Transient,
        fault: Fault::Target,
        retry_after: None,
        status: None,
        code: "link-elsewhere",
        summary: "the server's `next` link leads to another server, which does not get these credentials".to_owned(),
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}

fn too_many(resource_type: &str) -> Setback {
    Setback {
        retry: Retry::Permanent,
        fault: Fault::Message,
        retry_after: None,
        status: None,
        code: "too-many-found",
        summary: format!("a question found more than {MATCHES_MAX} {resource_type} resources: search for less, or say `_count`"),
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}
