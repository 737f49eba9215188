//! The releases of HL7 v2 that the dictionary has, and which of them a message's MSH-12 means.

/// A release of the standard, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Version {
    V21,
    V22,
    V23,
    V231,
    V24,
    V25,
    V251,
    V26,
    V27,
    V271,
    V28,
    V281,
    V282,
    V291,
}

impl Version {
    /// All releases, oldest first.
    pub const ALL: [Version; 14] = [
        Version::V21,
        Version::V22,
        Version::V23,
        Version::V231,
        Version::V24,
        Version::V25,
        Version::V251,
        Version::V26,
        Version::V27,
        Version::V271,
        Version::V28,
        Version::V281,
        Version::V282,
        Version::V291,
    ];

    /// The release as MSH-12 writes it, `2.5.1`.
    pub const fn name(self) -> &'static str {
        match self {
            Version::V21 => "2.1",
            Version::V22 => "2.2",
            Version::V23 => "2.3",
            Version::V231 => "2.3.1",
            Version::V24 => "2.4",
            Version::V25 => "2.5",
            Version::V251 => "2.5.1",
            Version::V26 => "2.6",
            Version::V27 => "2.7",
            Version::V271 => "2.7.1",
            Version::V28 => "2.8",
            Version::V281 => "2.8.1",
            Version::V282 => "2.8.2",
            Version::V291 => "2.9.1",
        }
    }

    /// The release that MSH-12 names exactly (2.9 is read as 2.9.1, its revision), or nothing.
    pub fn known(msh12: &str) -> Option<Version> {
        let name = first_component(msh12);
        if name == "2.9" {
            return Some(Version::V291);
        }
        Version::ALL.into_iter().find(|v| v.name() == name)
    }

    /// The release to read a message by. MSH-12's first component decides; a revision that the dictionary lacks takes
    /// the newest one before it (`2.3.z` is 2.3, `2.8.9` is 2.8.2); what names no release at all is read as 2.5.
    pub fn of(msh12: &str) -> Version {
        if let Some(version) = Version::known(msh12) {
            return version;
        }
        let mut numbers = first_component(msh12).split('.');
        let minor: Option<u32> = match (numbers.next(), numbers.next().map(str::parse)) {
            (Some("2"), Some(Ok(minor))) if (1..=9).contains(&minor) => Some(minor),
            _ => None,
        };
        let Some(minor) = minor else { return Version::V25 };
        let patch: u32 = numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Version::ALL.into_iter().rev().find(|v| v.numbers() <= (minor, patch)).unwrap_or(Version::V21)
    }

    /// Minor version and revision; 2.9.1 also stands for 2.9, so that 2.9's neighbours find it.
    fn numbers(self) -> (u32, u32) {
        let mut parts = self.name().split('.').skip(1).map(|n| n.parse().unwrap_or(0));
        let minor = parts.next().unwrap_or(0);
        (minor, if self == Version::V291 { 0 } else { parts.next().unwrap_or(0) })
    }
}

/// MSH-12 is a VID from 2.3.1 on; the version itself is its first component, whatever the delimiter (`2.4^^`, `2.5^DEU`).
fn first_component(msh12: &str) -> &str {
    let text = msh12.trim();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn msh_12_as_real_senders_write_it() {
        for (text, want) in [
            ("2.5.1", "2.5.1"),
            ("2.4^^", "2.4"),
            ("2.5^FRA^2.5", "2.5"),
            (" 2.3 ", "2.3"),
            ("2.3.z", "2.3"),
            ("2.9", "2.9.1"),
            ("2.8.9", "2.8.2"),
            ("2.999", "2.5"),
            ("9.9", "2.5"),
            ("1.0", "2.5"),
            ("", "2.5"),
            ("V2.5", "2.5"),
        ] {
            assert_eq!(Version::of(text).name(), want, "{text}");
        }
    }
}
