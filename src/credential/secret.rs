//! Secrets that are kept elsewhere: in a file or behind a command. They are read again when they change, so that no restart is needed.

use crate::exchange::Secret;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A command that takes longer is ended.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);
/// No password, token or key is longer.
const SECRET_BYTES_MAX: u64 = 1 << 20;
/// A file is looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretSource {
    /// The secret itself: from the environment, or a header's plain text.
    Text(Secret<String>),
    /// A file; a line break at its end does not belong to the secret.
    File(PathBuf),
    /// A program and its arguments, run without a shell; what it prints is the secret.
    Command(Vec<String>),
}

impl SecretSource {
    /// A text as a secret.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Secret::new(text.into()))
    }

    /// Reads it now. Blocks: a file's time, or a command's, at most 10 s.
    ///
    /// # Errors
    /// A sentence that names the place and says what is wrong, without the secret.
    pub fn read(&self) -> Result<Secret<String>, String> {
        let text = match self {
            Self::Text(secret) => return Ok(secret.clone()),
            Self::File(path) => read_file(path)?,
            Self::Command(words) => run(words)?,
        };
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err(format!("{} holds an empty secret", self.place())),
            text => Ok(Secret::new(text.to_owned())),
        }
    }

    /// Where it is kept, for people.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Text(_) => "the site file".to_owned(),
            Self::File(path) => format!("the file {}", path.display()),
            Self::Command(words) => format!("the command {}", words.first().map_or("", String::as_str)),
        }
    }
}

/// A text file of a secret's size.
pub(crate) fn read_file(path: &Path) -> Result<String, String> {
    let fault = |what: &str| format!("the file {} cannot be read: {what}", path.display());
    let file = std::fs::File::open(path).map_err(|e| fault(&e.kind().to_string()))?;
    let mut text = String::new();
    let length = file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| fault(&e.kind().to_string()))?;
    if length as u64 > SECRET_BYTES_MAX { Err(fault("it is longer than 1 MiB")) } else { Ok(text) }
}

fn run(words: &[String]) -> Result<String, String> {
    let (program, arguments) = words.split_first().ok_or_else(|| "the command for a secret is empty".to_owned())?;
    let fault = |what: &str| format!("the command {program} gave no secret: {what}");
    // What it says on standard error may be about the secret: it is not shown.
    let command = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = command.map_err(|e| fault(&e.kind().to_string()))?;
    let out = child.stdout.take();
    let deadline = Instant::now() + COMMAND_TIME_MAX;
    let (done, ended) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = out.map_or(Ok(0), |out| out.take(SECRET_BYTES_MAX).read_to_string(&mut text));
        // Nobody listens any more if it took too long.
        let _ = done.send(read.map(|_| text));
    });
    let text = ended.recv_timeout(COMMAND_TIME_MAX);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline && text.is_ok() => std::thread::sleep(Duration::from_millis(5)),
            _ => break None,
        }
    };
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(fault("it did not end within 10 s"));
    };
    match (status.code(), text) {
        (Some(0), Ok(Ok(text))) => Ok(text),
        (Some(0), _) => Err(fault("it printed no text")),
        (Some(code), _) => Err(fault(&format!("it ended with exit code {code}"))),
        (None, _) => Err(fault("it was ended by a signal")),
    }
}

/// Which version of a file there is: a rewrite, a rename over it and a swapped link all change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileMark {
    modified: (i64, i64),
    inode: u64,
    length: u64,
}

impl FileMark {
    /// `None` if the file is not there.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { modified: (meta.mtime(), meta.mtime_nsec()), inode: meta.ino(), length: meta.len() })
    }
}

/// Says when it is time to look at a file again.
#[derive(Debug)]
pub(crate) struct Looked(Instant);

impl Looked {
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// True at most once a second.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.0.elapsed() >= LOOK_EVERY;
        if due {
            *self = Self::now();
        }
        due
    }
}

/// A secret in use. A file that changed is read again at its next use, a command is run again when its secret was refused.
#[derive(Debug)]
pub(crate) struct HeldSecret {
    source: SecretSource,
    held: Mutex<Held>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Held {
    value: Secret<String>,
    mark: Option<FileMark>,
    looked: Looked,
}

impl HeldSecret {
    /// Reads it for the first time.
    pub(crate) fn open(source: SecretSource) -> Result<Self, String> {
        // The mark comes first: a file that changes in between is then read once more.
        let mark = source.mark();
        let value = source.read()?;
        Ok(Self { source, held: Mutex::new(Held { value, mark, looked: Looked::now() }), turn: tokio::sync::Mutex::default() })
    }

    /// The secret as it is now. One that cannot be read at the moment stays as it was.
    pub(crate) fn current(&self) -> Secret<String> {
        let mut held = self.held();
        if matches!(self.source, SecretSource::File(_)) && held.looked.is_due() {
            let mark = self.source.mark();
            if mark != held.mark {
                held.mark = mark;
                match self.source.read() {
                    Ok(value) => held.value = value,
                    Err(what) => tracing::warn!("{what}; the last secret that was read is used"),
                }
            }
        }
        held.value.clone()
    }

    /// After somebody refused it: reads it again, whatever the clock says. True if it is another one now.
    pub(crate) async fn reread(&self) -> bool {
        if matches!(self.source, SecretSource::Text(_)) {
            return false;
        }
        let source = self.source.clone();
        let mark = source.mark();
        match tokio::task::spawn_blocking(move || source.read()).await {
            Ok(Ok(value)) => {
                let mut held = self.held();
                let changed = held.value != value;
                *held = Held { value, mark, looked: Looked::now() };
                changed
            }
            Ok(Err(what)) => {
                tracing::warn!("{what}; the last secret that was read is used");
                false
            }
            Err(_) => false,
        }
    }

    /// After somebody showed another one: reads it again, at most once a second however many there are. Those who come meanwhile wait for it.
    pub(crate) async fn look_again(&self) {
        let _turn = self.turn.lock().await;
        let is_due = self.held().looked.is_due();
        if is_due {
            self.reread().await;
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // Whole values are put in one step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SecretSource {
    fn mark(&self) -> Option<FileMark> {
        match self {
            Self::File(path) => FileMark::of(path),
            Self::Text(_) | Self::Command(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> SecretSource {
        SecretSource::Command(words.iter().map(|w| (*w).to_owned()).collect())
    }

    #[test]
    fn a_command_prints_the_secret_and_its_faults_do_not() {
        assert_eq!(command(&["printf", "geheim\\n"]).read().expect("it prints").expose(), "geheim");
        for (words, told) in [
            (&["sh", "-c", "echo geheim; echo geheim >&2; exit 3"][..], "the command sh gave no secret: it ended with exit code 3"),
            (&["true"], "the command true holds an empty secret"),
            (&["/no/such/program"], "the command /no/such/program gave no secret: entity not found"),
            (&[], "the command for a secret is empty"),
        ] {
            assert_eq!(command(words).read().expect_err("no secret"), told);
        }
    }

    #[tokio::test]
    async fn a_file_that_changed_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "one\n").expect("written");
        let held = HeldSecret::open(SecretSource::File(path.clone())).expect("readable");
        assert_eq!(held.current().expose(), "one");
        assert!(!held.reread().await);
        std::fs::write(&path, "two\n").expect("written");
        assert!(held.reread().await);
        assert_eq!(held.current().expose(), "two");
        // What is broken for a moment does not take the last good one away.
        std::fs::write(&path, "\n").expect("written");
        assert!(!held.reread().await);
        assert_eq!(held.current().expose(), "two");
    }
}
