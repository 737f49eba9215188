//! The server that a command names: a target of the site, or a URL.

use crate::cli::paint::err;
use crate::cli::site_file;
use crate::diagnostic::{Severity, render};
use crate::exchange::Secret;
use crate::site::{Site, TargetKind, words};
use crate::target::{FhirConfig, FhirTarget, TargetConfig};
use std::path::{Path, PathBuf};

/// Where the site file is, for commands that read a target's settings.
#[derive(clap::Args)]
pub(crate) struct SiteArgs {
    /// The site file
    #[arg(long, value_name = "FILE", default_value = site_file::DEFAULT)]
    pub(crate) config: PathBuf,
}

/// Reads the site. Secrets of other targets may be missing here; faults are told.
pub(crate) fn site(config: &Path) -> Result<Site, String> {
    let loaded = site_file::read(config, Vec::new(), false).map_err(|e| format!("{}: {}", config.display(), words(&e)))?;
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error).cloned().collect();
    if !errors.is_empty() {
        err!("{}", render(&loaded.sources, &errors, site_file::style()).trim_end());
    }
    loaded.site.ok_or_else(|| format!("{} has faults", config.display()))
}

/// The settings of a target by its name, or of a server by its URL, without credentials.
pub(crate) fn config(name: &str, config: &Path) -> Result<FhirConfig, String> {
    if name.contains("://") {
        return Ok(FhirConfig::new(name, Secret::default()));
    }
    let site = site(config)?;
    let servers = || {
        let names: Vec<_> = site.targets.iter().filter(|t| matches!(t.kind, TargetKind::Fhir { .. })).map(|t| t.name.as_str()).collect();
        if names.is_empty() { format!("{} has no FHIR server as a target", config.display()) } else { format!("FHIR servers here: {}", names.join(", ")) }
    };
    let Some(target) = site.targets.iter().find(|t| t.name == name) else { return Err(format!("there is no target `{name}`; {}", servers())) };
    // Ids are made for writing only.
    match target.config(&[0; 32]) {
        TargetConfig::Fhir(config) => Ok(config),
        _ => Err(format!("target `{name}` is no FHIR server; {}", servers())),
    }
}

/// Opens it; its secrets must be there.
pub(crate) fn open(name: &str, site: &SiteArgs) -> Result<FhirTarget, String> {
    FhirTarget::open(config(name, &site.config)?).map_err(|e| format!("target {name}: {e}"))
}
