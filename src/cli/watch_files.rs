//! Notices that route files or the site file changed, and waits until whoever edits them is done.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the folders are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How long they must stay as they are before they count.
const QUIET: Duration = Duration::from_millis(300);

/// What is watched.
pub(crate) struct Watched {
    /// Each path, and what it was like when it was looked at.
    seen: Vec<(PathBuf, u64)>,
    /// A change that was noticed, and since when nothing more has changed.
    pending: Option<(Vec<u64>, Instant)>,
}

impl Watched {
    /// Everything as it is now counts as seen. Folders are watched with all below them.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let looked = |path: PathBuf| {
            let seen = fingerprint(&path);
            (path, seen)
        };
        Self { seen: paths.into_iter().map(looked).collect(), pending: None }
    }

    /// Looks at other paths from now on. They were read after `before` had looked at them: what changed since then, or since they were looked at
    /// here, is not missed.
    pub(crate) fn watch(&mut self, paths: Vec<PathBuf>, before: &Self) {
        let known = |path: &PathBuf| self.seen.iter().chain(&before.seen).find(|(other, _)| other == path).map(|(_, seen)| *seen);
        let looked = |path: PathBuf| {
            let seen = known(&path).unwrap_or_else(|| fingerprint(&path));
            (path, seen)
        };
        let seen = paths.into_iter().map(looked).collect();
        *self = Self { seen, pending: None };
    }

    /// Returns once something changed and then stayed the same for 300 ms. Polling: it works on every file system, mounted volumes included.
    /// May be dropped and called again without missing anything.
    pub(crate) async fn changed(&mut self) {
        loop {
            let wait = match &self.pending {
                Some((_, since)) => (*since + QUIET).saturating_duration_since(Instant::now()).min(LOOK_EVERY),
                None => LOOK_EVERY,
            };
            tokio::time::sleep(wait).await;
            let now = self.look().await;
            let is_new = self.seen.iter().map(|(_, seen)| seen).ne(&now);
            match &self.pending {
                Some((was, since)) if *was == now && since.elapsed() >= QUIET => {
                    self.pending = None;
                    if is_new {
                        self.seen.iter_mut().zip(now).for_each(|((_, seen), now)| *seen = now);
                        return;
                    }
                }
                Some((was, _)) if *was == now => {}
                None if !is_new => {}
                _ => self.pending = Some((now, Instant::now())),
            }
        }
    }

    async fn look(&self) -> Vec<u64> {
        let paths: Vec<PathBuf> = self.seen.iter().map(|(path, _)| path.clone()).collect();
        let looked = tokio::task::spawn_blocking(move || paths.iter().map(|path| fingerprint(path)).collect()).await;
        looked.unwrap_or_else(|_| self.seen.iter().map(|(_, seen)| *seen).collect())
    }
}

/// A hash over names, sizes, times of change and the files' numbers: a link that points elsewhere and a file that took another's place
/// count, also where size and time are the same.
fn fingerprint(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    add(path, &mut hasher, 0);
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
    (facts.dev(), facts.ino(), facts.ctime(), facts.ctime_nsec()).hash(hasher);
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

    #[tokio::test]
    async fn what_changes_while_a_new_folder_is_read_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        [&old, &new].iter().for_each(|path| std::fs::create_dir(path).expect("a folder"));
        let mut watched = Watched::new(vec![old.clone()]);
        let before = Watched::new(vec![new.clone()]);
        // Here it is read, and then mended before anybody looks at it again.
        std::fs::write(new.join("a.yaml"), "route: a").expect("a file");
        watched.watch(vec![old, new], &before);
        tokio::time::timeout(Duration::from_secs(10), watched.changed()).await.expect("noticed");
    }
}
