//! What each request carries to be let in: credentials and configured headers, as they are now.

use crate::credential::HeldSecret;
use crate::target::fhir::connection::Connection;
use crate::target::fhir::token::Tokens;
use crate::target::{Auth, Fault, HttpConfig, Retry, Setback, TargetError};
use base64::Engine as _;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

pub(crate) struct Access {
    headers: Vec<(HeaderName, HeldSecret)>,
    kind: Kind,
}

enum Kind {
    Nothing,
    Basic { user: String, password: HeldSecret },
    Bearer(HeldSecret),
    Token(Box<Tokens>),
}

impl Access {
    /// Reads the secrets, and checks that they can be sent; asks nobody.
    pub(crate) fn open(config: &HttpConfig, base: &str) -> Result<Self, TargetError> {
        let open = |source: &crate::target::SecretSource| HeldSecret::open(source.clone()).map_err(TargetError::Setting);
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| TargetError::Setting(format!("'{name}' is not a header's name")))?;
            headers.push((header, open(value)?));
        }
        let kind = match &config.auth {
            Auth::None => Kind::Nothing,
            Auth::Basic { user, password } => Kind::Basic { user: user.clone(), password: open(password)? },
            Auth::Bearer(token) => Kind::Bearer(open(token)?),
            Auth::Token(token) => Kind::Token(Box::new(Tokens::open(token, base)?)),
        };
        let access = Self { headers, kind };
        access.fixed().map_err(TargetError::Setting)?;
        Ok(access)
    }

    /// What a request carries now. Without a token there is nothing to send, and the token server's fault is told.
    pub(crate) async fn headers(&self, connection: &Connection) -> Result<HeaderMap, Setback> {
        let mut all = self.fixed().map_err(unusable)?;
        if let Kind::Token(tokens) = &self.kind {
            all.insert(AUTHORIZATION, tokens.header(connection).await?);
        }
        Ok(all)
    }

    /// After a 401: what to try once more, where there is anything new to try.
    pub(crate) async fn renewed(&self, refused: &HeaderMap, connection: &Connection) -> Result<Option<HeaderMap>, Setback> {
        let authorization = match &self.kind {
            Kind::Token(tokens) => Some(tokens.renewed(refused.get(AUTHORIZATION), connection).await?),
            Kind::Basic { password: secret, .. } | Kind::Bearer(secret) => {
                secret.reread().await;
                None
            }
            Kind::Nothing => None,
        };
        for (_, value) in &self.headers {
            value.reread().await;
        }
        let mut all = self.fixed().map_err(unusable)?;
        if let Some(value) = authorization {
            all.insert(AUTHORIZATION, value);
        }
        // Somebody else's request may have read it anew before: then this one differs all the same.
        Ok((all != *refused).then_some(all))
    }

    /// All headers but a token.
    fn fixed(&self) -> Result<HeaderMap, String> {
        let mut all = HeaderMap::new();
        for (name, value) in &self.headers {
            all.insert(name.clone(), secret_value(name.as_str(), value.current().expose())?);
        }
        let authorization = match &self.kind {
            Kind::Nothing | Kind::Token(_) => return Ok(all),
            Kind::Basic { user, password } => {
                let login = format!("{user}:{}", password.current().expose());
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
            }
            Kind::Bearer(token) => format!("Bearer {}", token.current().expose()),
        };
        all.insert(AUTHORIZATION, secret_value("Authorization", &authorization)?);
        Ok(all)
    }
}

fn secret_value(name: &str, value: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(value).map_err(|_| format!("the value of header '{name}' has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A secret that was exchanged for one that cannot be sent.
fn unusable(summary: String) -> Setback {
    Setback {
        retry: Retry::Transient,
        fault: Fault::Target,
        retry_after: None,
        status: None,
        code: "credentials",
        summary,
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}
