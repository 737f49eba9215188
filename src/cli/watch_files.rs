//! Notices that route files or the site file changed, and waits until whoever edits them is done.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the folders are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How long they must stay as they are before they count.
const QUIET: Duration = Duration::from_millis(300);

/// What is watched.
pub(crate) struct Watched {
    paths: Vec<PathBuf>,
    seen: u64,
}

impl Watched {
    /// Everything as it is now counts as seen. Folders are watched with all below them.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let seen = fingerprint(&paths);
        Self { paths, seen }
    }

    /// Returns once something changed and then stayed the same for 300 ms. Polling: it works on every file system, mounted volumes included.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut now = self.look().await;
            if now == self.seen {
                continue;
            }
            loop {
                tokio::time::sleep(QUIET).await;
                let later = self.look().await;
                if later == now {
                    break;
                }
                now = later;
            }
            self.seen = now;
            return;
        }
    }

    async fn look(&self) -> u64 {
        let paths = self.paths.clone();
        let seen = self.seen;
        tokio::task::spawn_blocking(move || fingerprint(&paths)).await.unwrap_or(seen)
    }
}

/// A hash over names, sizes and times of change.
fn fingerprint(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    paths.iter().for_each(|p| add(p, &mut hasher, 0));
    hasher.finish()
}

fn add(path: &Path, hasher: &mut DefaultHasher, depth: usize) {
    const DEPTH_MAX: usize = 16;
    path.hash(hasher);
    let Ok(facts) = std::fs::metadata(path) else { return };
    if facts.is_dir() {
        let Ok(entries) = std::fs::read_dir(path) else { return };
        let mut paths: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        paths.sort();
        if depth < DEPTH_MAX {
            paths.iter().for_each(|p| add(p, hasher, depth + 1));
        }
        return;
    }
    facts.len().hash(hasher);
    facts.modified().ok().hash(hasher);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_below_a_folder_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("deep")).expect("a folder");
        let mut watched = Watched::new(vec![folder.path().to_path_buf()]);
        assert!(tokio::time::timeout(LOOK_EVERY * 3, watched.changed()).await.is_err(), "nothing changed");
        std::fs::write(folder.path().join("deep/a.yaml"), "route: a").expect("a file");
        tokio::time::timeout(Duration::from_secs(10), watched.changed()).await.expect("noticed");
    }
}
