//! The site file that was applied last, as the journal keeps it: what runs when the file is faulty at a start, and what still leads to targets
//! that are gone.

use crate::cli::site_file;
use crate::journal::{Gone, Journal, Reader};
use crate::site::{LoadedSite, Override, Site, TargetSite};
use std::path::{Path, PathBuf};

/// A site file with what stands above it: enough to read it again.
#[derive(Clone)]
pub(crate) struct Origin {
    /// The file.
    pub config: PathBuf,
    /// What the command line said.
    pub flags: Vec<Override>,
    /// The file's text when it was applied.
    pub text: String,
}

impl Origin {
    /// Reads a text as if it were in the file.
    fn site_of(&self, text: &str) -> Option<Site> {
        site_file::of_text(&self.config, text, self.flags.clone(), true).site
    }

    /// Has the journal keep the text, now that the site is in force; and for targets that it has no more, the last text that had them.
    pub(crate) async fn remember(&self, journal: &Journal, site: &Site) {
        let last = journal.site(None).await.ok().flatten();
        let mut gone = Gone { back: site.target_names(), left: Vec::new() };
        if let Some(last) = last.filter(|last| *last != self.text) {
            let old = self.site_of(&last).map(|old| old.target_names()).unwrap_or_default();
            gone.left = old.into_iter().filter(|name| !gone.back.contains(name)).map(|name| (name, last.clone())).collect();
        }
        if let Err(error) = journal.put_site(self.text.clone(), gone).await {
            tracing::warn!(%error, "the site file that is in force could not be kept for the next start");
        }
    }

    /// A target that the site has no more, as it was last.
    pub(crate) async fn gone(&self, journal: &Journal, target: &str) -> Option<TargetSite> {
        let text = journal.site(Some(target)).await.ok().flatten()?;
        self.site_of(&text)?.targets.into_iter().find(|t| t.name == target)
    }
}

/// The site that was applied last, with its text, where the file has faults now. The journal must be the one that the file, the command line or
/// the environment names, and the site that it keeps must name it, too.
pub(crate) fn last_applied(config: &Path, text: &str, loaded: &LoadedSite, flags: &[Override]) -> Option<(Site, String)> {
    let folder = config.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let above = site_file::of_text(config, "", flags.to_vec(), true).journal;
    let written = || journal_path(text).map(|path| folder.join(path));
    let candidates = [loaded.journal.clone(), if loaded.journal.is_none() { written() } else { None }, above];
    candidates.into_iter().flatten().find_map(|folder| {
        let text = Reader::open(&folder).ok()?.site().ok().flatten()?;
        let site = site_file::of_text(config, &text, flags.to_vec(), true).site?;
        (site.journal.path == folder && !site.listeners.is_empty()).then_some((site, text))
    })
}

/// What a file that is no YAML seems to say about `journal: { path }`. Only a place to look for a journal that says the same.
fn journal_path(text: &str) -> Option<&str> {
    let from = text.lines().position(|line| line.starts_with("journal:"))?;
    let section = text.lines().skip(from).enumerate().take_while(|(n, line)| *n == 0 || line.starts_with(' ')).map(|(_, line)| line);
    let path = section.filter_map(|line| line.split_once("path:")).map(|(_, rest)| rest).next()?;
    let path = path.split([',', '}', '#']).next()?.trim().trim_matches(['"', '\'']);
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::journal_path;

    #[test]
    fn the_journals_path_is_seen_in_a_file_that_is_no_yaml() {
        assert_eq!(journal_path("listeners: [\njournal: { keep: 3d, path: /var/lib/kiln }\n"), Some("/var/lib/kiln"));
        assert_eq!(journal_path("journal:\n  keep: 3d\n  path: \"here\"  # ours\ntargets: {"), Some("here"));
        assert_eq!(journal_path("journal:\n  keep: 3d\nlog: { path: x }"), None);
    }
}
