//! Reading for people: one resource, or a search page by page (<https://hl7.org/fhir/R4/http.html#paging>).

use crate::target::Setback;
use crate::target::fhir::FhirTarget;
use crate::target::fhir::answer::Answer;
use crate::target::fhir::http::Effect;
use crate::target::fhir::judge::{Asked, setback};
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use std::collections::HashSet;

/// A search under way.
pub struct Search<'t> {
    pub(super) target: &'t FhirTarget,
    pub(super) resource_type: String,
    /// As asked, with `_count`.
    pub(super) parameters: Vec<(String, String)>,
    /// How many were asked for at a time.
    pub(super) page_size: usize,
    pub(super) next: Next,
    pub(super) seen: HashSet<String>,
    /// How many matches come before the first page, where the search goes on from an earlier one.
    pub(super) before: usize,
    /// How many matches there are in all, if the server says.
    pub total: Option<u64>,
}

/// Where a search goes on.
pub(super) enum Next {
    First,
    Link(Url),
    Offset(usize),
    Nothing,
}

/// Why a search ended before its end.
#[derive(Debug)]
pub enum PageFault {
    /// The server refused or failed.
    Setback(Setback),
    /// It has no further pages to give, although there is more: no `next` link, and no `_offset`.
    NoPages,
    /// Its `next` link leads to another server, which must not get these credentials.
    ElsewhereLink,
}

impl From<Setback> for PageFault {
    fn from(setback: Setback) -> Self {
        Self::Setback(setback)
    }
}

impl FhirTarget {
    /// Reads `Patient/12`, `Patient/12/_history/3`, `metadata` or another path below the base.
    ///
    /// # Errors
    /// The server's refusal: the message's fault if there is no such resource.
    pub async fn read(&self, path: &str) -> Result<Value, Setback> {
        let answer = self.send(self.client.get(format!("{}/{path}", self.base)), Effect::Reads).await?;
        resource(answer, Asked::Instance, path)
    }

    /// Does the server take searches for this type by POST? Asked with an identifier that nothing has; changes nothing.
    ///
    /// # Errors
    /// It takes them neither by POST nor by GET, or could not be asked.
    pub async fn takes_search_by_post(&self, resource_type: &str) -> Result<bool, Setback> {
        let mut search = self.search_all(&format!("{resource_type}?identifier=urn:kiln:nothing|nothing"), 1).expect("a type and a parameter are a query");
        match search.page().await {
            Ok(_) => Ok(self.takes_post_search()),
            Err(PageFault::Setback(setback)) => Err(setback),
            Err(PageFault::NoPages | PageFault::ElsewhereLink) => Ok(self.takes_post_search()),
        }
    }

    /// Begins a search: `Patient?name=Meier&_sort=birthdate`, or `?_type=Patient,Encounter` over the whole server. `page_size` is asked
    /// for unless the query has a `_count` of its own.
    ///
    /// # Errors
    /// A sentence, if this is no query.
    pub fn search_all(&self, query: &str, page_size: usize) -> Result<Search<'_>, String> {
        let (resource_type, parameters) = query.split_once('?').unwrap_or((query, ""));
        if !resource_type.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(format!("`{resource_type}` is no resource type; a search is written `Patient?name=Meier`"));
        }
        let parsed = Url::parse(&format!("http://query/?{parameters}")).map_err(|_| "the search parameters cannot be read".to_owned())?;
        let mut parameters: Vec<(String, String)> = parsed.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        let own = parameters.iter().find(|(key, _)| key == "_count").and_then(|(_, n)| n.parse().ok());
        let page_size = own.unwrap_or(page_size).max(1);
        if own.is_none() {
            parameters.push(("_count".to_owned(), page_size.to_string()));
        }
        let resource_type = resource_type.to_owned();
        Ok(Search { target: self, resource_type, parameters, page_size, next: Next::First, seen: HashSet::new(), before: 0, total: None })
    }
}

impl Search<'_> {
    /// The entries of the next page, as the server gave them; `None` after the last.
    ///
    /// # Errors
    /// What kept it from being read; the pages before it stand.
    pub async fn page(&mut self) -> Result<Option<Vec<Value>>, PageFault> {
        let (by_offset, by_link) = (matches!(self.next, Next::Offset(_)), matches!(self.next, Next::Link(_)));
        let bundle = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing => return Ok(None),
            Next::First => self.ask(None).await?,
            Next::Offset(offset) => self.ask(Some(offset)).await?,
            Next::Link(url) => {
                let answer = self.target.send(self.target.client.get(url), Effect::Reads).await?;
                resource(answer, Asked::Endpoint, "the next page of the search")?
            }
        };
        self.total = bundle.get("total").and_then(Value::as_u64).or(self.total);
        let entries: Vec<Value> = bundle.get("entry").and_then(Value::as_array).cloned().unwrap_or_default();
        // An OperationOutcome beside the matches is not one of them.
        let matches: Vec<String> = entries.iter().filter(|e| is_match(e)).filter_map(name).collect();
        if by_offset && !matches.is_empty() && matches.iter().all(|m| self.seen.contains(m)) {
            // The first page again: the server does not know the parameter.
            return Err(PageFault::NoPages);
        }
        let fresh = matches.len();
        self.seen.extend(matches);
        self.next = match self.link(&bundle)? {
            Some(url) => Next::Link(url),
            // Who gives links gives none on the last page, whatever the total says: what came before a page that is resumed is not counted here.
            None if !by_link && self.has_more(fresh, by_offset) => Next::Offset(self.before + self.seen.len()),
            None => Next::Nothing,
        };
        Ok((!entries.is_empty() || !by_offset).then_some(entries))
    }

    /// Without a `next` link: is there more all the same?
    fn has_more(&self, fresh: usize, by_offset: bool) -> bool {
        match self.total {
            Some(total) => fresh > 0 && total > (self.before + self.seen.len()) as u64,
            // Who says no total and no link may have cut the answer, or may have had just so many.
            None => fresh >= self.page_size && (by_offset || fresh > 0),
        }
    }

    async fn ask(&self, offset: Option<usize>) -> Result<Value, Setback> {
        let mut parameters = self.parameters.clone();
        parameters.extend(offset.map(|n| ("_offset".to_owned(), n.to_string())));
        let target = self.target;
        let url = format!("{}/{}", target.base, self.resource_type);
        let form = Url::parse_with_params("http://form", &parameters).ok().and_then(|u| u.query().map(str::to_owned)).unwrap_or_default();
        // By POST, so that no URL holds patient data, where the server takes it.
        if !self.resource_type.is_empty() && target.takes_post_search() {
            let request = target.client.post(format!("{url}/_search")).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.clone());
            let answer = target.send(request, Effect::Reads).await?;
            if !matches!(answer.status, 404 | 405 | 415 | 501) {
                return resource(answer, Asked::Endpoint, "the search");
            }
            target.never_post_search_again();
        }
        let answer = target.send(target.client.get(format!("{}?{form}", url.trim_end_matches('/'))), Effect::Reads).await?;
        resource(answer, Asked::Endpoint, "the search")
    }

    /// The `next` link. Behind a proxy servers often name themselves otherwise: what begins with the base's path is taken to be the base's.
    fn link(&self, bundle: &Value) -> Result<Option<Url>, PageFault> {
        let links = bundle.get("link").and_then(Value::as_array).into_iter().flatten();
        let next = links.filter(|l| l.get("relation").and_then(Value::as_str) == Some("next")).find_map(|l| l.get("url").and_then(Value::as_str));
        let (Some(next), Ok(base)) = (next, Url::parse(&format!("{}/", self.target.base))) else { return Ok(None) };
        let Ok(mut url) = base.join(next) else { return Ok(None) };
        if url.origin() == base.origin() {
            return Ok(Some(url));
        }
        if !url.path().starts_with(base.path().trim_end_matches('/')) {
            return Err(PageFault::ElsewhereLink);
        }
        let moved = url.set_scheme(base.scheme()).is_ok() && url.set_host(base.host_str()).is_ok() && url.set_port(base.port()).is_ok();
        if moved && url.origin() == base.origin() { Ok(Some(url)) } else { Err(PageFault::ElsewhereLink) }
    }
}

pub(super) fn is_match(entry: &Value) -> bool {
    entry.pointer("/search/mode").and_then(Value::as_str).is_none_or(|mode| mode == "match")
}

fn name(entry: &Value) -> Option<String> {
    let resource = entry.get("resource")?;
    Some(format!("{}/{}", resource.get("resourceType")?.as_str()?, resource.get("id")?.as_str()?))
}

/// The resource of a 200, else why there is none.
fn resource(answer: Answer, asked: Asked, what: &str) -> Result<Value, Setback> {
    match answer.body {
        Some(body) if answer.status == 200 && body.get("resourceType").is_some() => Ok(body),
        body => Err(setback(&Answer { body, ..answer }, asked, what).reading()),
    }
}
