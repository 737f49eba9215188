//! Access tokens: asked for with the grant `client_credentials`, kept until shortly before they end, and asked for by one request at a time.

use crate::credential::HeldSecret;
use crate::exchange::{Phi, Secret};
use crate::target::fhir::answer::Answer;
use crate::target::fhir::connection::Connection;
use crate::target::fhir::http::{Effect, exchange};
use crate::target::fhir::key::SigningKey;
use crate::target::{ClientProof, Fault, Retry, Setback, TargetError, TokenConfig};
use base64::Engine as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a token is used whose lifetime the server does not say.
const LIFETIME_UNSAID: Duration = Duration::from_secs(300);
/// A token is renewed a fifth of its lifetime before its end, within these bounds.
const RENEW_BEFORE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(60)];
/// A token is not used any more a tenth of its lifetime before its end, within these bounds: a request takes time, clocks run differently, and
/// lifetimes are cut to whole seconds.
const UNUSED_BEFORE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// After a renewal that failed while the old token is still good.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How a client proves who it is, with its secret in hand.
enum Proof {
    Basic(HeldSecret),
    Post(HeldSecret),
    Key { key: HeldSecret, id: Option<String>, audience: Option<String> },
}

/// The tokens of one target.
pub(crate) struct Tokens {
    config: TokenConfig,
    proof: Proof,
    /// Where the server says that its token endpoint is.
    discovery_url: String,
    discovered: Mutex<Option<String>>,
    current: Mutex<Option<Token>>,
    /// Held while a token is being asked for.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    renew_at: Instant,
    ends_at: Instant,
}

impl Tokens {
    /// Reads the secrets; asks nobody.
    pub(crate) fn open(config: &TokenConfig, base: &str) -> Result<Self, TargetError> {
        let open = |source: &crate::target::SecretSource| HeldSecret::open(source.clone()).map_err(TargetError::Setting);
        let proof = match &config.proof {
            ClientProof::Basic(secret) => Proof::Basic(open(secret)?),
            ClientProof::Post(secret) => Proof::Post(open(secret)?),
            ClientProof::Key { key, id, audience } => {
                let held = open(key)?;
                SigningKey::read(held.current().expose(), id.as_deref()).map_err(|what| TargetError::Setting(format!("{}: {what}", key.place())))?;
                Proof::Key { key: held, id: id.clone(), audience: audience.clone() }
            }
        };
        if let Some(url) = &config.url
            && !reqwest::Url::parse(url).is_ok_and(|u| matches!(u.scheme(), "http" | "https"))
        {
            return Err(TargetError::Setting("the token URL is not an http(s) address".to_owned()));
        }
        Ok(Self {
            config: config.clone(),
            proof,
            discovery_url: format!("{base}/.well-known/smart-configuration"),
            discovered: Mutex::new(None),
            current: Mutex::new(None),
            asking: tokio::sync::Mutex::new(()),
        })
    }

    /// The Authorization header to send now.
    pub(crate) async fn header(&self, connection: &Connection) -> Result<HeaderValue, Setback> {
        let now = Instant::now();
        match self.current() {
            Some(token) if now < token.renew_at => Ok(token.header),
            // Still good: one request renews it, the others go on with what there is.
            Some(token) if now < token.ends_at => {
                let Ok(_asking) = self.asking.try_lock() else { return Ok(token.header) };
                if let Some(renewed) = self.current().filter(|t| now < t.renew_at) {
                    return Ok(renewed.header);
                }
                match self.ask(connection).await {
                    Ok(header) => Ok(header),
                    Err(setback) => {
                        tracing::warn!(code = setback.code, "an access token could not be renewed yet; the old one is still good");
                        self.put(Token { renew_at: Instant::now() + PAUSE_AFTER_FAILURE, ..token.clone() });
                        Ok(token.header)
                    }
                }
            }
            _ => {
                let _asking = self.asking.lock().await;
                match self.current().filter(|t| Instant::now() < t.ends_at) {
                    Some(token) => Ok(token.header),
                    None => self.ask(connection).await,
                }
            }
        }
    }

    /// After a server refused this token: another one, unless somebody has got it meanwhile.
    pub(crate) async fn renewed(&self, refused: Option<&HeaderValue>, connection: &Connection) -> Result<HeaderValue, Setback> {
        let _asking = self.asking.lock().await;
        match self.current().filter(|t| Some(&t.header) != refused && Instant::now() < t.ends_at) {
            Some(token) => Ok(token.header),
            None => self.ask(connection).await,
        }
    }

    async fn ask(&self, connection: &Connection) -> Result<HeaderValue, Setback> {
        let url = self.url(connection).await?;
        let began = Instant::now();
        let mut answer = self.request(connection, &url).await?;
        // A secret that was exchanged on the disk, and here not yet.
        if matches!(answer.status, 400 | 401) && self.proof.secret().reread().await {
            answer = self.request(connection, &url).await?;
        }
        if answer.status != 200 {
            // It may have moved.
            *self.discovered.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Err(refused(&answer));
        }
        let token = read(&answer, began)
            .ok_or_else(|| setback("token-answer", Some(answer.status), "the token server's answer is no bearer token (RFC 6749, section 5.1)".to_owned()))?;
        let header = token.header.clone();
        self.put(token);
        Ok(header)
    }

    async fn request(&self, connection: &Connection, url: &str) -> Result<Answer, Setback> {
        let mut form = vec![("grant_type", "client_credentials".to_owned())];
        form.extend(self.config.scope.iter().map(|scope| ("scope", scope.clone())));
        form.extend(self.config.parameters.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let mut request = connection.post(url).header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        match &self.proof {
            Proof::Basic(secret) => {
                let login = format!("{}:{}", encoded(&self.config.client), encoded(secret.current().expose()));
                let mut value = HeaderValue::from_str(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login)))
                    .expect("base64 has only characters that a header may have");
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            Proof::Post(secret) => {
                form.push(("client_id", self.config.client.clone()));
                form.push(("client_secret", secret.current().expose().clone()));
            }
            Proof::Key { key, id, audience } => {
                let now = jiff::Timestamp::now().as_second();
                let sign = |key: &Secret<String>| {
                    SigningKey::read(key.expose(), id.as_deref())?.assertion(&self.config.client, audience.as_deref().unwrap_or(url), now)
                };
                let assertion = sign(&key.current()).map_err(|what| setback("token-key", None, what))?;
                form.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()));
                form.push(("client_assertion", assertion));
            }
        }
        let body = reqwest::Url::parse_with_params("http://form", &form).ok().and_then(|u| u.query().map(str::to_owned)).unwrap_or_default();
        exchange(connection, request.body(body), Effect::Reads).await.map_err(|mut failed| {
            failed.summary = format!("the token server: {}", failed.summary);
            failed
        })
    }

    /// The token endpoint: as configured, else as the FHIR server says.
    async fn url(&self, connection: &Connection) -> Result<String, Setback> {
        if let Some(url) = &self.config.url {
            return Ok(url.clone());
        }
        if let Some(url) = self.discovered.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(url);
        }
        let request = connection.get(&self.discovery_url).header(ACCEPT, "application/json");
        let answer = exchange(connection, request, Effect::Reads).await?;
        let said = answer.body.as_ref().and_then(|b| b.get("token_endpoint")).and_then(Value::as_str);
        let Some(url) = said.filter(|_| answer.status == 200).and_then(|url| reqwest::Url::parse(url).ok()) else {
            let what = format!("{} does not say where the token endpoint is; set `token-url:`", self.discovery_url);
            return Err(setback("token-discovery", Some(answer.status), what));
        };
        if self.discovery_url.starts_with("https:") && url.scheme() != "https" {
            let what = "the server names a token endpoint without TLS; set `token-url:` if that is meant".to_owned();
            return Err(setback("token-discovery", Some(answer.status), what));
        }
        *self.discovered.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.to_string());
        Ok(url.to_string())
    }

    fn current(&self) -> Option<Token> {
        // A token is put in one step.
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, token: Token) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }
}

impl Proof {
    fn secret(&self) -> &HeldSecret {
        match self {
            Self::Basic(secret) | Self::Post(secret) | Self::Key { key: secret, .. } => secret,
        }
    }
}

fn encoded(text: &str) -> String {
    let url = reqwest::Url::parse_with_params("http://form", &[("", text)]);
    url.ok().and_then(|u| u.query().map(|q| q.trim_start_matches('=').to_owned())).unwrap_or_default()
}

/// The token of an answer (RFC 6749, section 5.1).
fn read(answer: &Answer, began: Instant) -> Option<Token> {
    let body = answer.body.as_ref()?;
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    if !text("token_type").is_none_or(|t| t.eq_ignore_ascii_case("bearer")) {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {}", text("access_token")?)).ok()?;
    header.set_sensitive(true);
    // Some servers send the number as a text.
    let seconds = body.get("expires_in").and_then(|e| e.as_u64().or_else(|| e.as_f64().map(|f| f as u64)).or_else(|| e.as_str()?.parse().ok()));
    let lifetime = seconds.map_or(LIFETIME_UNSAID, |s| Duration::from_secs(s.min(86_400)));
    let before = |part: u32, [least, most]: [Duration; 2]| began + lifetime.saturating_sub((lifetime / part).clamp(least, most));
    Some(Token { header, renew_at: before(5, RENEW_BEFORE), ends_at: before(10, UNUSED_BEFORE) })
}

/// Why no token was given. The token server's own text could hold anything; the codes of RFC 6749 are said.
fn refused(answer: &Answer) -> Setback {
    const KNOWN: [(&str, &str); 7] = [
        ("invalid_client", "it does not know the client, or not its secret or key"),
        ("invalid_scope", "it does not give this scope"),
        ("invalid_grant", "it does not take this grant"),
        ("unauthorized_client", "this client may not ask for tokens in this way"),
        ("unsupported_grant_type", "it has no `client_credentials`"),
        ("invalid_request", "it does not understand the request"),
        ("invalid_target", "it does not know the resource"),
    ];
    let error = answer.body.as_ref().and_then(|b| b.get("error")).and_then(Value::as_str);
    let known = KNOWN.iter().find(|(code, _)| Some(*code) == error);
    let why = known.map_or(String::new(), |(code, meaning)| format!(" ({code}: {meaning})"));
    let (code, status) = if matches!(answer.status, 429 | 500..=599) { ("token-unavailable", answer.status) } else { ("token-refused", answer.status) };
    let mut setback = setback(code, Some(status), format!("the token server answered {status}{why}"));
    setback.retry_after = answer.retry_after;
    // An answer that refuses has no token; the journal shows it to whoever asks by name.
    setback.detail = Some(Phi::new(answer.text.expose().chars().take(4096).collect()));
    setback
}

/// No request went to the FHIR server.
fn setback(code: &'static str, status: Option<u16>, summary: String) -> Setback {
    Setback {
        retry: Retry::Transient,
        fault: Fault::Target,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer { status: 200, etag: None, location: None, retry_after: None, body: serde_json::from_str(text).ok(), text: Phi::new(text.to_owned()) }
    }

    #[test]
    fn a_token_is_renewed_before_its_end() {
        let now = Instant::now();
        for (text, renew, end) in [
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":300}"#, 240, 295),
            (r#"{"access_token":"a","token_type":"bearer","expires_in":"3600"}"#, 3540, 3595),
            (r#"{"access_token":"a","token_type":"bearer","expires_in":10}"#, 8, 9),
            (r#"{"access_token":"a","token_type":"bearer"}"#, 240, 295),
        ] {
            let token = read(&answer(text), now).expect("a token");
            assert_eq!((token.renew_at - now, token.ends_at - now), (Duration::from_secs(renew), Duration::from_secs(end)), "{text}");
        }
        for text in [r#"{"access_token":"a","token_type":"mac"}"#, r#"{"token_type":"bearer"}"#, "{}", "<html>", "{\"access_token\":\"a\\n\"}"] {
            assert!(read(&answer(text), now).is_none(), "{text}");
        }
    }

    #[test]
    fn secrets_are_encoded_as_a_form_is() {
        assert_eq!(encoded("a b:c&ä%"), "a+b%3Ac%26%C3%A4%25");
    }
}
