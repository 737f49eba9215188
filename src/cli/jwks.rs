//! `kiln jwks`: the public half of a key, as a server wants it.

use crate::cli::Exit;
use crate::cli::fhir_target::{self, SiteArgs};
use crate::cli::paint::{err, out, plain};
use crate::target::{Auth, ClientProof, SecretSource, SigningKey};
use std::path::PathBuf;

/// Print the public key set of a SMART Backend Services client
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln jwks main > jwks.json                       the key of target `main`, to register at its server
  kiln jwks --key smart.pem --kid kiln-2026

A key is made with `openssl ecparam -name secp384r1 -genkey -noout -out smart.pem`, or `openssl genrsa -out smart.pem 3072`.
Prints nothing of the private half. Exits 2 when there is no key that could be used.")]
pub(crate) struct Args {
    /// A target of the site file with `auth: { smart: ... }`
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    target: Option<String>,
    /// A file with the private key: PEM, JWK or JWKS
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The key's ID; left out, the file's own, else its thumbprint
    #[arg(long, value_name = "ID", requires = "key")]
    kid: Option<String>,
    /// On one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    site: SiteArgs,
}

pub(crate) fn run(args: &Args) -> Exit {
    match set(args) {
        Ok(set) if args.json => out!("{set}"),
        Ok(set) => out!("{set:#}"),
        Err(what) => {
            err!("kiln: {}", plain(&what));
            return Exit::CouldNot;
        }
    }
    Exit::Done
}

fn set(args: &Args) -> Result<serde_json::Value, String> {
    let (source, id) = match (&args.key, &args.target) {
        (Some(path), _) => (SecretSource::File(path.clone()), args.kid.clone()),
        (None, target) => {
            let name = target.as_deref().unwrap_or_default();
            match fhir_target::config(name, &args.site.config)?.auth {
                Auth::Token(token) => match token.proof {
                    ClientProof::Key { key, id, .. } => (key, id),
                    _ => return Err(format!("target `{name}` proves itself by a secret, not by a key")),
                },
                _ => return Err(format!("target `{name}` has no `auth: {{ smart: ... }}`")),
            }
        }
    };
    let text = source.read()?;
    Ok(SigningKey::read(text.expose(), id.as_deref())?.public_set())
}
