//! Durations (`30d`, `24h`, `300ms`), sizes (`1GiB`) and address ranges (`10.0.0.0/8`) as people write them.

use crate::site::model::Network;
use std::net::IpAddr;
use std::time::Duration;

/// A whole number and a unit: ms, s, m, h, d or w. A bare `0` needs no unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
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
pub(crate) fn size(text: &str) -> Option<u64> {
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

/// `10.0.0.0/8`, `fd00::/8`, or one address.
pub(crate) fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => p.parse().ok()?,
        Some(_) => return None,
        None => most,
    };
    (prefix <= most).then_some(Network { address, prefix })
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

    #[test]
    fn networks_hold_their_own_addresses_only() {
        let ten = network("10.0.0.0/8").expect("a network");
        assert!(ten.contains("10.255.1.2".parse().expect("an address")));
        assert!(ten.contains("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!ten.contains("11.0.0.1".parse().expect("an address")));
        assert!(network("0.0.0.0/0").expect("a network").contains("8.8.8.8".parse().expect("an address")));
        assert!(network("::/0").expect("a network").contains("fe80::1".parse().expect("an address")));
        assert_eq!(network("10.0.0.0/33"), None);
        assert_eq!(network("10.0.0/8"), None);
        assert_eq!(network("10.0.0.0/+8"), None);
    }
}
