//! Durations (`30d`, `24h`, `300ms`) and sizes (`1GiB`) as people write them.

use std::time::Duration;

/// A whole number and a unit: ms, s, m, h, d or w. A bare `0` needs no unit.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        "" if number == 0 => 0,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// A whole number and a unit: B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "" if number == 0 => 0,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_people_write_them() {
        for (text, ms) in [("300ms", Some(300)), ("24h", Some(86_400_000)), ("30d", Some(2_592_000_000)), ("0", Some(0)), ("5 m", Some(300_000))] {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
        }
        for text in ["", "5", "h", "1.5h", "-1h", "1 fortnight", "99999999999999999w"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(size("1GiB"), Some(1 << 30));
        assert_eq!(size("16 MiB"), Some(16 << 20));
        assert_eq!(size("1GB"), Some(1_000_000_000));
        assert_eq!(size("1G"), None);
        assert_eq!(size("99999999999TiB"), None);
    }
}
