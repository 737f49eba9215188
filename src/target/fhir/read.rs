//! Asking before writing: what the server has for an identity or an id, and the step that follows from it.

use crate::fhir::{Amendment, Patch, PatchFormat, Save, SaveMode, Step, carries, has_identifier, merge, put_id, search};
use crate::target::fhir::answer::Answer;
use crate::target::fhir::http::Effect;
use crate::target::fhir::judge::{Asked, setback, still_referred};
use crate::target::fhir::{FhirTarget, Work};
use crate::target::{Fault, Retry, Setback};
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use std::sync::atomic::Ordering;

/// More matches than this are not named one by one.
const CANDIDATES_MAX: usize = 10;

/// A resource that the server has.
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) etag: Option<String>,
    pub(crate) resource: Value,
}

impl FhirTarget {
    /// Reads a resource by id; `None` if it is gone or never was.
    pub(crate) async fn get(&self, resource_type: &str, id: &str) -> Result<Option<Found>, Setback> {
        let answer = self.send(self.client.get(format!("{}/{resource_type}/{id}", self.base)), Effect::Reads).await?;
        match answer.status {
            200 if answer.resource_type() == Some(resource_type) => Ok(found(answer)),
            404 | 410 if answer.is_fhir() => Ok(None),
            _ => Err(setback(&answer, Asked::Endpoint, "the reading of a resource").reading()),
        }
    }

    /// All resources that have the identity; by `POST _search`, so that no URL holds patient data, where the server takes it.
    pub(crate) async fn search(&self, save: &Save) -> Result<Vec<Found>, Setback> {
        let form = format!("{}&_count={CANDIDATES_MAX}", search(&save.identity));
        if self.takes_post_search() {
            let url = format!("{}/{}/_search", self.base, save.resource_type);
            let request = self.client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.clone());
            let answer = self.send(request, Effect::Reads).await?;
            // Only these say that there is no such interaction; anything else would be the same with GET.
            if !matches!(answer.status, 404 | 405 | 415 | 501) {
                return matches(answer, save);
            }
            let by_get = self.search_by_get(save, &form).await?;
            self.never_post_search_again();
            return Ok(by_get);
        }
        self.search_by_get(save, &form).await
    }

    async fn search_by_get(&self, save: &Save, form: &str) -> Result<Vec<Found>, Setback> {
        matches(self.send(self.client.get(format!("{}/{}?{form}", self.base, save.resource_type)), Effect::Reads).await?, save)
    }

    /// What the server has for an entry: by its step's id, else by identity. Several are a dead letter that names them.
    async fn look(&self, work: &mut Work<'_>, n: usize) -> Result<Option<Found>, Setback> {
        let save = &work.saves.entries[n];
        if let Some(id) = work.steps[n].id().map(str::to_owned) {
            if let Some(found) = self.get(save.resource_type, &id).await? {
                return Ok(Some(found));
            }
            work.forget(n);
            work.known[n] = false;
        }
        if !has_identifier(save.resource_type) || save.identity.is_empty() {
            return Ok(None);
        }
        let mut all = self.search(save).await?;
        if all.len() > 1 {
            return Err(several(save, &all));
        }
        Ok(all.pop())
    }

    /// Asks, and takes the step that follows: by id where the resource exists, conditionally where it doesn't.
    /// A merge or patch gets its content later, by [`Work::change`], when all references are known.
    pub(crate) async fn resolve(&self, work: &mut Work<'_>, n: usize) -> Result<Option<Value>, Setback> {
        let save = &work.saves.entries[n];
        let found = self.look(work, n).await?;
        let absent = |secret: &[u8; 32]| match has_identifier(save.resource_type) {
            true => Step::Post { once: true },
            false => Step::Put { id: put_id(secret, save.resource_type, &save.identity), etag: None, body: None },
        };
        let (step, current) = match (save.mode, found) {
            (SaveMode::Merge | SaveMode::Patch, Some(found)) => (Step::Put { id: found.id, etag: found.etag, body: None }, Some(found.resource)),
            (SaveMode::Update, Some(found)) => (Step::Put { id: found.id, etag: found.etag, body: None }, None),
            (SaveMode::Delete, Some(found)) => (Step::Delete { id: found.id }, None),
            (SaveMode::CreateIfNone | SaveMode::Find, Some(found)) => {
                work.note(n, &found.id, found.etag, 200);
                (Step::Refer(format!("{}/{}", save.resource_type, found.id)), None)
            }
            (SaveMode::Merge | SaveMode::Patch | SaveMode::Update | SaveMode::CreateIfNone, None) => (absent(work.secret), None),
            // Gone already: that is what a delete wants.
            (SaveMode::Delete, None) => (Step::Refer(String::new()), None),
            (SaveMode::Find, None) => return Err(nothing(save)),
            (SaveMode::Create | SaveMode::Put, _) => return Ok(None),
        };
        work.steps[n] = step;
        Ok(current)
    }

    /// Why a conditional request met 412: several matches or a missing one are the message's; otherwise somebody was faster.
    pub(crate) async fn explain_412(&self, work: &Work<'_>, answer: &Answer, entries: &[usize]) -> Setback {
        for &n in entries {
            let (Some(save), Some(step)) = (work.saves.entries.get(n), work.steps.get(n)) else { continue };
            let conditional = match step {
                Step::Refer(reference) => reference.contains('?'),
                Step::Post { once } => *once,
                Step::PutWhere | Step::DeleteWhere => true,
                Step::Put { .. } | Step::Patch(_) | Step::Delete { .. } => false,
            };
            if !conditional {
                continue;
            }
            match self.search(save).await {
                Ok(all) if all.len() > 1 => return several(save, &all),
                Ok(all) if all.is_empty() && save.mode == SaveMode::Find => return nothing(save),
                Ok(_) => {}
                Err(setback) => return setback,
            }
        }
        answer.setback(Retry::Transient, Fault::Race, "http-412", "somebody else changed a resource in between; it is read again")
    }

    /// Why a transaction met 409: an old If-Match, to which HAPI says that instead of 412; a delete of what others refer to; or somebody was faster.
    pub(crate) async fn explain_409(&self, work: &mut Work<'_>, answer: &Answer) -> Setback {
        let mut old = false;
        for n in 0..work.steps.len() {
            let Step::Put { id, etag: Some(etag), .. } = work.steps[n].clone() else { continue };
            match self.get(work.saves.entries[n].resource_type, &id).await {
                Ok(found) if found.as_ref().and_then(|f| f.etag.as_ref()) != Some(&etag) => {
                    work.forget(n);
                    old = true;
                }
                Ok(_) => {}
                Err(setback) => return setback,
            }
        }
        if !old && work.steps.iter().any(|s| matches!(s, Step::Delete { .. } | Step::DeleteWhere)) {
            return still_referred(answer);
        }
        answer.setback(Retry::Transient, Fault::Race, "http-409", "somebody else changed a resource in between; it is read again")
    }

    /// Why a request with references was refused, if it is one of these: a known id whose resource is gone, or a `find` that finds none or several.
    pub(crate) async fn find_stale(&self, work: &mut Work<'_>, answer: &Answer) -> Option<Setback> {
        let mut any = false;
        for n in 0..work.steps.len() {
            let Some(save) = work.saves.entries.get(n) else { continue };
            let result = match (&work.steps[n], work.steps[n].id()) {
                (_, Some(id)) if work.known[n] => self.get(save.resource_type, id).await.map(|found| {
                    if found.is_none() {
                        work.forget(n);
                        any = true;
                    }
                }),
                (Step::Refer(reference), None) if reference.contains('?') => match self.search(save).await {
                    Ok(all) if all.len() > 1 => Err(several(save, &all)),
                    Ok(all) if all.is_empty() => Err(nothing(save)),
                    other => other.map(|_| ()),
                },
                _ => Ok(()),
            };
            if let Err(setback) = result {
                return Some(setback);
            }
        }
        any.then(|| answer.setback(Retry::Transient, Fault::Race, "stale-id", "a server id that an earlier receipt named is gone; it is looked up again"))
    }
}

impl FhirTarget {
    /// The form in which an entry's change is sent: `None` writes the whole resource.
    pub(crate) fn patch_format(&self, save: &Save) -> Option<PatchFormat> {
        self.patch.filter(|_| save.mode == SaveMode::Patch && self.takes_patches.load(Ordering::Relaxed))
    }

    /// Whether a patch was refused because the resource is no longer the one that it was made for, which servers say in many ways: a `test` that
    /// fails is a 400, 409, 412 or 422.
    pub(crate) async fn is_outdated(&self, resource_type: &str, change: &Amendment) -> Result<bool, Setback> {
        let Some(now) = self.get(resource_type, &change.id).await? else { return Ok(true) };
        // By the version, where there is one: servers write one ETag in more than one way.
        let version = |resource: &Value| resource.pointer("/meta/versionId").cloned();
        Ok(match (version(&now.resource), version(&change.base)) {
            (Some(now), Some(then)) => now != then,
            _ => now.resource != change.base,
        })
    }
}

impl Work<'_> {
    /// Works out what `save` (the entry, perhaps without some of its links) changes in what the server has. If nothing, the entry is not written.
    pub(crate) fn change(&mut self, n: usize, save: &Save, base: Value, link: &dyn Fn(usize) -> String, format: Option<PatchFormat>) {
        let Step::Put { id, etag, .. } = &self.steps[n] else { return };
        let (id, etag) = (id.clone(), etag.clone());
        let whole = merge(&base, save, link);
        if whole == base {
            self.note(n, &id, etag, 200);
            self.steps[n] = Step::Refer(format!("{}/{id}", save.resource_type));
            return;
        }
        // Without an ETag, a FHIRPath Patch has nothing that guards it; a whole resource has no more.
        let patch = format
            .filter(|format| *format == PatchFormat::Json || etag.is_some())
            .and_then(|format| Patch::between(&base, &whole, format, etag.is_some()))
            .filter(|patch| !patch.has_open_reference());
        self.steps[n] = match patch {
            Some(patch) => Step::Patch(Box::new(Amendment { id, etag, base, whole, patch })),
            None => Step::Put { id, etag, body: Some(whole) },
        };
    }

    /// Instead of a patch that the server does not take: the same change as a whole resource. Only behind If-Match, which is as good a guard.
    pub(crate) fn send_whole(&mut self, n: usize) -> bool {
        let Some(Step::Patch(change)) = self.steps.get(n) else { return false };
        if change.etag.is_none() {
            return false;
        }
        let Amendment { id, etag, whole, .. } = (**change).clone();
        self.steps[n] = Step::Put { id, etag, body: Some(whole) };
        true
    }
}

/// The answers by which a server may say that it takes no patches, or none in a Bundle.
pub(crate) fn may_refuse_patches(status: u16) -> bool {
    matches!(status, 400 | 404 | 405 | 415 | 422 | 501)
}

/// With them, what a server says that stumbles over a patch (HAPI answers 500 to a FHIRPath Patch with a code that is none). Whether it was done then,
/// nobody knows; If-Match sees to it that the whole resource does not overwrite it.
pub(crate) fn may_stumble_over_patches(status: u16) -> bool {
    may_refuse_patches(status) || status == 500
}

fn found(answer: Answer) -> Option<Found> {
    let place = answer.place();
    Some(Found { id: place.id?, etag: place.etag, resource: answer.body? })
}

/// The matches of a searchset. What does not carry the identity shows that the server did not search by it, and that would be a wrong patient.
fn matches(answer: Answer, save: &Save) -> Result<Vec<Found>, Setback> {
    let what = "the search by identifier";
    if answer.status != 200 || answer.resource_type() != Some("Bundle") {
        return Err(setback(&answer, Asked::Endpoint, what).reading());
    }
    let mut all = Vec::new();
    for entry in answer.body.as_ref().and_then(|b| b.get("entry")).and_then(Value::as_array).into_iter().flatten() {
        let is_match = entry.pointer("/search/mode").and_then(Value::as_str).is_none_or(|m| m == "match");
        let Some(resource) = entry.get("resource").filter(|r| is_match && r.get("resourceType").and_then(Value::as_str) == Some(save.resource_type)) else {
            continue;
        };
        if !carries(resource, &save.identity) {
            let summary = format!("{what} gave a {} that does not have the identifier: the server seems to ignore the parameter", save.resource_type);
            return Err(answer.setback(Retry::Transient, Fault::Target, "not-promised", summary));
        }
        let Some(id) = resource.get("id").and_then(Value::as_str) else { continue };
        let etag = resource.pointer("/meta/versionId").and_then(Value::as_str).map(|v| format!("W/\"{v}\""));
        all.push(Found { id: id.to_owned(), etag, resource: resource.clone() });
    }
    Ok(all)
}

fn message_setback(code: &'static str, status: Option<u16>, summary: String) -> Setback {
    Setback {
        retry: Retry::Permanent,
        fault: Fault::Message,
        retry_after: None,
        status,
        code,
        summary,
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}

fn several(save: &Save, all: &[Found]) -> Setback {
    let candidates: Vec<String> = all.iter().map(|f| format!("{}/{}", save.resource_type, f.id)).collect();
    let summary = format!("'{}': several {} resources have its identity; the server must have one", save.name, save.resource_type);
    message_setback("several-matches", Some(412), summary).with_detail(candidates.join(", "))
}

fn nothing(save: &Save) -> Setback {
    message_setback("no-match", None, format!("'{}': no {} has its identity, and `find` never creates one", save.name, save.resource_type))
}
