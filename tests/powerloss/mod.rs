//! Runs a program on a disk that loses power (shim.c), and makes the folder that it would find afterwards.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The shim, built once for each test binary.
pub fn shim() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("powerloss-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powerloss/shim.c");
        let built = Command::new("gcc")
            .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source)
            .args(["-ldl", "-lpthread"])
            .status();
        assert!(built.expect("gcc is installed").success(), "the shim does not compile");
        library
    })
}

/// A disk under one folder, and the image of what is durable on it.
pub struct Disk {
    home: tempfile::TempDir,
    round: u32,
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(home.path().join("disk-0")).expect("a folder");
        std::fs::create_dir(home.path().join("image-0")).expect("a folder");
        Self { home, round: 0 }
    }

    /// The folder that is watched in this round.
    pub fn path(&self) -> PathBuf {
        self.home.path().join(format!("disk-{}", self.round))
    }

    /// A place beside the disk that power failures don't touch: what the program told the world.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.home.path().join(format!("image-{}", self.round))
    }

    /// Puts a command on this disk. It dies at the operation `crash_at` (0: never); `seed` decides what survives of what was not synced.
    pub fn under(&self, command: &mut Command, crash_at: u64, seed: u64) {
        let preload = shim();
        command.env("LD_PRELOAD", preload).env("KILN_SHIM_DIR", self.path()).env("KILN_SHIM_IMAGE", self.image());
        command.env("KILN_SHIM_CRASH", crash_at.to_string()).env("KILN_SHIM_SEED", seed.to_string()).env("KILN_SHIM_FAULT", self.beside("fault"));
    }

    /// Power is back: the next round's folder is made from the image.
    pub fn power_on(&mut self) {
        let (image, old) = (self.image(), self.path());
        self.round += 1;
        let (path, next) = (self.path(), self.image());
        std::fs::create_dir(&path).expect("a folder");
        std::fs::create_dir(next).expect("a folder");
        restore(&image, "", &path);
        let _ = std::fs::remove_dir_all(image);
        let _ = std::fs::remove_dir_all(old);
    }
}

fn restore(image: &Path, folder: &str, into: &Path) {
    // A folder whose own names were never synced is empty.
    let Ok(list) = std::fs::read_to_string(image.join(format!("folder-{folder}"))) else { return };
    for line in list.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(number), Some(name)) = (words.next(), words.next(), words.next()) else { panic!("the image is broken: {line}") };
        if kind == "d" {
            std::fs::create_dir(into.join(name)).expect("a folder");
            restore(image, &format!("{folder}%{name}"), &into.join(name));
        } else {
            // A name can be durable although no content is.
            let data = image.join(format!("data-{number}"));
            std::fs::copy(data, into.join(name)).expect("the content of a file");
        }
    }
}
