//! The private key of a SMART backend client: read from PEM, JWK or JWKS, shown as a public set, and used to sign assertions.
//!
//! <https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html>: RS384 or ES384.

use crate::target::fhir::der;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

/// The shortest RSA key that may sign.
const RSA_BITS_MIN: usize = 2048;
/// How long an assertion is good for, in seconds; the specification allows 300, and clocks differ.
const ASSERTION_SECONDS: i64 = 240;
/// A server whose clock is behind must not think that an assertion comes from the future.
const CLOCK_SLACK_SECONDS: i64 = 10;

/// A private key that signs assertions.
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
    id: String,
    public: Map<String, Value>,
}

impl SigningKey {
    /// Reads PEM (PKCS#8, PKCS#1, SEC1), a JWK, or a JWKS. `id` names the key of a set, and is the `kid` that assertions carry; without it
    /// that is the file's own, else the key's thumbprint (RFC 7638).
    ///
    /// # Errors
    /// A sentence that says what is wrong with it and what would be right. Nothing of the key.
    pub fn read(text: &str, id: Option<&str>) -> Result<Self, String> {
        let (key, algorithm, own_id) = if text.trim_start().starts_with('{') { from_json(text, id)? } else { from_pem(text)? };
        let jwk = Jwk::from_encoding_key(&key, algorithm).map_err(|_| "the private key cannot be used: it is damaged, or of an unusual kind".to_owned())?;
        let Ok(Value::Object(mut public)) = serde_json::to_value(&jwk) else { return Err("the public half of the key cannot be written".to_owned()) };
        if let Some(n) = public.get("n").and_then(Value::as_str) {
            let bits = URL_SAFE_NO_PAD.decode(n).map_or(0, |n| n.len() * 8);
            if bits < RSA_BITS_MIN {
                return Err(format!("the RSA key has {bits} bits, and {RSA_BITS_MIN} are the least; make one with `openssl genrsa -out key.pem 3072`"));
            }
        }
        let id = match id.map(str::to_owned).or(own_id) {
            Some(id) => id,
            None => jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| "the key has no thumbprint; say `kid:`".to_owned())?,
        };
        public.insert("kid".to_owned(), json!(id));
        public.insert("use".to_owned(), json!("sig"));
        public.insert("key_ops".to_owned(), json!(["verify"]));
        Ok(Self { key, algorithm, id, public })
    }

    /// What to give to the server: `{"keys": [...]}` with the public half alone.
    pub fn public_set(&self) -> Value {
        json!({ "keys": [self.public] })
    }

    /// A signed assertion that `client` is who it says, for `audience`, with an ID that no other one has. `now` in seconds since 1970.
    pub(crate) fn assertion(&self, client: &str, audience: &str, now: i64) -> Result<String, String> {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        let claims = json!({
            "iss": client,
            "sub": client,
            "aud": audience,
            "iat": now - CLOCK_SLACK_SECONDS,
            "exp": now + ASSERTION_SECONDS,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|_| "the private key cannot sign".to_owned())
    }
}

type Read = (EncodingKey, Algorithm, Option<String>);

fn from_pem(text: &str) -> Result<Read, String> {
    const WRONG_CURVE: &str = "the EC key is not of the curve P-384; make one with `openssl ecparam -name secp384r1 -genkey -noout -out key.pem`";
    let contains = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs1(key)) => Ok((EncodingKey::from_rsa_der(key.secret_pkcs1_der()), Algorithm::RS384, None)),
        Ok(PrivateKeyDer::Sec1(key)) if contains(key.secret_sec1_der(), der::P384) => {
            Ok((EncodingKey::from_ec_der(&der::around_ec_key(key.secret_sec1_der())), Algorithm::ES384, None))
        }
        Ok(PrivateKeyDer::Sec1(_)) => Err(WRONG_CURVE.to_owned()),
        Ok(PrivateKeyDer::Pkcs8(key)) => match der::pkcs8(key.secret_pkcs8_der()) {
            Some((algorithm, inside)) if algorithm.starts_with(der::RSA) => Ok((EncodingKey::from_rsa_der(inside), Algorithm::RS384, None)),
            Some((algorithm, _)) if algorithm.starts_with(der::EC) && contains(algorithm, der::P384) => {
                Ok((EncodingKey::from_ec_der(key.secret_pkcs8_der()), Algorithm::ES384, None))
            }
            Some((algorithm, _)) if algorithm.starts_with(der::EC) => Err(WRONG_CURVE.to_owned()),
            _ => Err("the private key is neither RSA nor EC".to_owned()),
        },
        _ if text.contains("ENCRYPTED") => {
            Err("the private key has a passphrase; write it without one: `openssl pkcs8 -topk8 -nocrypt -in FILE -out key.pem`".to_owned())
        }
        _ => Err("this is no private key; write PEM (`-----BEGIN PRIVATE KEY-----`), a JWK or a JWKS".to_owned()),
    }
}

fn from_json(text: &str, id: Option<&str>) -> Result<Read, String> {
    // The parser's own words could quote the key.
    let root: Value = serde_json::from_str(text).map_err(|e| format!("the key is not JSON (line {}, column {})", e.line(), e.column()))?;
    let one = [root.clone()];
    let all = root.get("keys").and_then(Value::as_array).map_or(&one[..], Vec::as_slice);
    let word = |jwk: &Value, key: &str| jwk.get(key).and_then(Value::as_str).map(str::to_owned);
    let private: Vec<&Value> = all.iter().filter(|jwk| jwk.get("d").is_some()).collect();
    let fitting: Vec<&Value> = private.iter().copied().filter(|jwk| id.is_none() || all.len() == 1 || word(jwk, "kid").as_deref() == id).collect();
    let jwk = match (fitting.as_slice(), id) {
        ([jwk], _) => *jwk,
        ([], Some(id)) if !private.is_empty() => return Err(format!("the set has no private key with the kid `{id}`")),
        ([], _) => return Err("there is no private key in it; `d` is the private part of a JWK".to_owned()),
        (_, Some(id)) => return Err(format!("the set has several private keys with the kid `{id}`")),
        (_, None) => return Err("the set has several private keys; say which by `kid:`".to_owned()),
    };
    let number = |key: &str| {
        let text = word(jwk, key).ok_or_else(|| format!("the key lacks `{key}`"))?;
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| format!("`{key}` of the key is not base64url"))
    };
    let own_id = word(jwk, "kid");
    let algorithm = word(jwk, "alg");
    let is = |name: &str| algorithm.as_deref().is_none_or(|a| a == name);
    match (word(jwk, "kty").as_deref(), word(jwk, "crv").as_deref()) {
        (Some("RSA"), _) if is("RS384") => {
            let [n, e, d, p, q, dp, dq, qi] = ["n", "e", "d", "p", "q", "dp", "dq", "qi"].map(number);
            Ok((EncodingKey::from_rsa_der(&der::rsa_key(&[n?, e?, d?, p?, q?, dp?, dq?, qi?])), Algorithm::RS384, own_id))
        }
        (Some("EC"), Some("P-384")) if is("ES384") => {
            let key = der::ec_key(&number("d")?, &number("x")?, &number("y")?);
            Ok((EncodingKey::from_ec_der(&der::around_ec_key(&key)), Algorithm::ES384, own_id))
        }
        _ => Err("the key is of another kind; SMART backend services take RSA with RS384, or EC P-384 with ES384".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_told_without_its_text() {
        for (text, told) in [
            ("geheim", "this is no private key"),
            ("{geheim", "the key is not JSON (line 1, column 2)"),
            (r#"{"kty":"RSA","n":"geheim"}"#, "there is no private key in it"),
            (r#"{"kty":"RSA","n":"geheimXX","d":"geheimXX"}"#, "the key lacks `e`"),
            (r#"{"kty":"EC","crv":"P-256","d":"geheim"}"#, "the key is of another kind"),
            (r#"{"kty":"EC","crv":"P-384","d":"geheimXX","x":"geheimXX","y":"geheimXX"}"#, "the private key cannot be used"),
            (r#"{"keys":[{"kid":"a","d":"x"},{"kid":"b","d":"x"}]}"#, "the set has several private keys; say which by `kid:`"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "the private key has a passphrase"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "the private key is neither RSA nor EC"),
        ] {
            let Err(what) = SigningKey::read(text, None) else { panic!("{text} is a key") };
            assert!(what.starts_with(told) && !what.contains("geheim"), "{text}: {what}");
        }
    }
}
