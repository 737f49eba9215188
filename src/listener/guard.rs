//! Who may send over HTTP: users with passwords (RFC 7617), or bearers of a token (RFC 6750).

use crate::credential::{HeldSecret, SecretSource};
use crate::exchange::Secret;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// What a request must show.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpAuth {
    /// A user's name and password; never no user.
    Basic(Vec<User>),
    /// A token; the secret may hold several, a line each.
    Bearer(SecretSource),
}

/// Somebody who may send.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// The name.
    pub name: String,
    /// What the password is held against.
    pub password: Password,
}

/// What is known of a password.
#[derive(Clone, Debug, PartialEq)]
pub enum Password {
    /// The password itself, kept elsewhere.
    Secret(SecretSource),
    /// Its Argon2 hash as a PHC string: `$argon2id$v=19$m=19456,t=2,p=1$...`.
    Hash(Secret<String>),
}

impl Password {
    /// True for a text that is a hash which can be checked.
    pub fn is_hash(text: &str) -> bool {
        PasswordHash::new(text).is_ok_and(|hash| hash.algorithm.as_str().starts_with("argon2"))
    }
}

/// Why a request may not send.
pub(super) struct Unauthorized {
    bearer: bool,
    shown: bool,
}

impl Unauthorized {
    pub(super) fn why(&self) -> &'static str {
        match (self.shown, self.bearer) {
            (false, false) => "say who you are: a user and a password (Authorization: Basic)",
            (false, true) => "say who you are: a token (Authorization: Bearer)",
            (true, false) => "this user and this password are not known here",
            (true, true) => "this token is not known here",
        }
    }

    pub(super) fn challenge(&self) -> &'static str {
        if self.bearer { "Bearer" } else { "Basic realm=\"HL7 v2\", charset=\"UTF-8\"" }
    }
}

/// Credentials in use.
pub(super) enum Guard {
    Basic {
        users: Vec<(String, Held)>,
        /// Fingerprints of what was found right, since a hash is slow on purpose.
        known: Mutex<HashSet<[u8; 32]>>,
        /// Who guesses passwords must not take all processors.
        slow: Arc<Semaphore>,
    },
    Bearer(HeldSecret),
}

pub(super) enum Held {
    Secret(HeldSecret),
    Hash(String),
}

/// So many fingerprints are kept at most; more users than that have theirs computed again.
const KNOWN_MAX: usize = 10_000;

impl Guard {
    pub(super) fn open(auth: HttpAuth) -> Result<Self, String> {
        match auth {
            HttpAuth::Bearer(source) => HeldSecret::open(source).map(Self::Bearer),
            HttpAuth::Basic(users) => {
                let open = |user: User| {
                    let held = match user.password {
                        Password::Secret(source) => Held::Secret(HeldSecret::open(source)?),
                        Password::Hash(hash) => Held::Hash(hash.expose().clone()),
                    };
                    Ok((user.name, held))
                };
                let users = users.into_iter().map(open).collect::<Result<_, String>>()?;
                Ok(Self::Basic { users, known: Mutex::default(), slow: Arc::new(Semaphore::new(1)) })
            }
        }
    }

    pub(super) async fn check(&self, headers: &HeaderMap) -> Result<(), Unauthorized> {
        let bearer = matches!(self, Self::Bearer(_));
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| text.split_once(' '));
        let Some((scheme, shown)) = shown else { return Err(Unauthorized { bearer, shown: false }) };
        let right = match self {
            Self::Bearer(secret) => {
                let is_one = |held: &str| held.lines().any(|token| !token.is_empty() && same(token.trim(), shown.trim()));
                scheme.eq_ignore_ascii_case("bearer") && agrees(secret, is_one).await
            }
            Self::Basic { users, known, slow } => scheme.eq_ignore_ascii_case("basic") && basic(users, known, slow, shown.trim()).await,
        };
        if right { Ok(()) } else { Err(Unauthorized { bearer, shown: true }) }
    }
}

async fn basic(users: &[(String, Held)], known: &Mutex<HashSet<[u8; 32]>>, slow: &Semaphore, shown: &str) -> bool {
    let Some(pair) = STANDARD.decode(shown).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else { return false };
    let Some((name, password)) = pair.split_once(':') else { return false };
    let Some((_, held)) = users.iter().find(|(user, _)| same(user, name)) else { return false };
    match held {
        Held::Secret(secret) => agrees(secret, |held| same(held, password)).await,
        Held::Hash(hash) => {
            let fingerprint = *blake3::hash(format!("{hash}\n{password}").as_bytes()).as_bytes();
            let remembered = || known.lock().unwrap_or_else(PoisonError::into_inner);
            if remembered().contains(&fingerprint) {
                return true;
            }
            let _turn = slow.acquire().await;
            let (hash, password) = (hash.clone(), password.to_owned());
            let right = tokio::task::spawn_blocking(move || {
                PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
            });
            let right = right.await.unwrap_or(false);
            if right && remembered().len() < KNOWN_MAX {
                remembered().insert(fingerprint);
            }
            right
        }
    }
}

/// Whether the secret is what was shown. One that is not is read again first: nothing tells when what a command prints has changed.
async fn agrees(secret: &HeldSecret, is_shown: impl Fn(&str) -> bool) -> bool {
    if is_shown(secret.current().expose()) {
        return true;
    }
    secret.look_again().await;
    is_shown(secret.current().expose())
}

/// Compares in a time that says nothing about where they differ.
fn same(a: &str, b: &str) -> bool {
    blake3::hash(a.as_bytes()) == blake3::hash(b.as_bytes())
}
