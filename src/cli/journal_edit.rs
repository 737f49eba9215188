//! An operator's edit of a message: in an editor or from a file, read as any message is before anything is changed.

use crate::cli::control::Rules;
use crate::cli::paint::err;
use crate::exchange::MessageId;
use crate::hl7v2::Message;
use crate::journal::{Reader, draft_file};
use crate::site::words;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// The message as it is to be; `None` if it is as it was. A sentence about what went wrong.
pub(crate) fn edited(folder: &Path, rules: &Rules, number: u64, with: Option<&Path>) -> Result<Option<Vec<u8>>, String> {
    let reader = Reader::open(folder).map_err(|e| e.to_string())?;
    let record = reader.show(MessageId(number)).map_err(|e| format!("message {number}: {e}"))?;
    let was = record.content().expose();
    let now = match with {
        Some(file) => std::fs::read(file).map_err(|e| format!("{}: {}", file.display(), words(&e)))?,
        None => in_editor(folder, number, was)?,
    };
    let now = segments_end_as_before(&now, was);
    let options = rules.manners.get(&record.envelope.listener).copied().unwrap_or_default();
    Message::parse(now.clone().into(), &options).map_err(|fault| format!("the edited message cannot be read: {fault}; nothing was changed"))?;
    Ok((now != was[..]).then_some(now))
}

/// Who is at work, for the journal: the login name and the user's number.
pub(crate) fn who() -> String {
    let name = ["SUDO_USER", "LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok()).filter(|name| !name.is_empty());
    let name: String = name.unwrap_or_else(|| "somebody".to_owned()).chars().filter(|c| !c.is_control()).take(64).collect();
    format!("{name} (uid {})", rustix::process::getuid().as_raw())
}

/// Editors save a line a segment; the message gets the line ends that it had.
fn segments_end_as_before(text: &[u8], was: &[u8]) -> Vec<u8> {
    let end: &[u8] = match was.iter().position(|b| matches!(b, b'\r' | b'\n')) {
        Some(at) if was.get(at..at + 2) == Some(b"\r\n") => b"\r\n",
        Some(at) if was.get(at) == Some(&b'\n') => b"\n",
        _ => b"\r",
    };
    let lines = text.split(|b| matches!(b, b'\r' | b'\n')).filter(|line| !line.is_empty());
    let mut whole = lines.collect::<Vec<_>>().join(end);
    if matches!(was.last(), Some(b'\r' | b'\n')) {
        whole.extend_from_slice(end);
    }
    whole
}

/// A file that is its user's only, in the journal's folder, where patient data belongs; it goes away whatever happens.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.0) {
            err!("kiln: {} could not be deleted, and holds patient data: {}", self.0.display(), words(&e));
        }
    }
}

/// While an editor runs, what the terminal's keys send (Ctrl-C, Ctrl-\\) is the editor's: it goes to this process, too, which must live to delete
/// the file. Afterwards they end this process, as ever.
struct HeldSignals(Arc<AtomicBool>);

impl HeldSignals {
    fn hold() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut quit) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?)
        };
        let held = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&held);
        std::thread::Builder::new().name("kiln-signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    // What a shell says of a process that a signal has ended: 128 and its number.
                    let code = tokio::select! {
                        _ = interrupt.recv() => 130,
                        _ = quit.recv() => 131,
                    };
                    if !still.load(Ordering::Acquire) {
                        std::process::exit(code);
                    }
                }
            });
        })?;
        Ok(Self(held))
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn in_editor(folder: &Path, number: u64, message: &[u8]) -> Result<Vec<u8>, String> {
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok()).filter(|editor| !editor.trim().is_empty());
    let editor = editor.ok_or("no editor is set: set EDITOR, or give the edited message with `--with FILE`")?;
    let path = draft_file(folder, MessageId(number));
    let _held = HeldSignals::hold().map_err(|e| format!("signals cannot be handled here: {}", words(&e)))?;
    let failed = |e: std::io::Error| format!("{}: {}", path.display(), words(&e));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let draft = Draft(path.clone());
    let lines = segments_end_as_before(message, b"\n");
    file.write_all(&lines).and_then(|()| file.sync_all()).map_err(failed)?;
    drop(file);
    // As git does it: the editor may come with arguments.
    let status = std::process::Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(&draft.0).status();
    match status {
        Ok(status) if status.success() => std::fs::read(&draft.0).map_err(failed),
        Ok(_) => Err("the editor ended with a fault; nothing was changed".to_owned()),
        Err(e) => Err(format!("the editor cannot be started: {}", words(&e))),
    }
}
