//! Which peers may connect: networks in CIDR notation (RFC 4632 and RFC 4291).

use std::net::IpAddr;
use std::str::FromStr;

/// A network such as `10.0.0.0/8` or `fd00::/8`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// As IPv6; IPv4 is mapped (`::ffff:a.b.c.d`), so that one comparison serves both.
    bits: u128,
    prefix_length: u32,
}

/// Why a network could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The part before the slash.
    #[error("expected an IP address, as in 10.0.0.0/8")]
    Address,
    /// The part after the slash.
    #[error("the prefix length must be a number up to 32 (IPv4) or 128 (IPv6)")]
    PrefixLength,
}

impl Network {
    /// True if the address lies within. An IPv4 address that arrived over IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let mask = if self.prefix_length == 0 { 0 } else { u128::MAX << (128 - self.prefix_length) };
        (as_bits(address) ^ self.bits) & mask == 0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(longest), str::parse::<u32>).map_err(|_| NetworkError::PrefixLength)?;
        if length > longest {
            return Err(NetworkError::PrefixLength);
        }
        Ok(Self { bits: as_bits(address), prefix_length: length + 128 - longest })
    }
}

fn as_bits(address: IpAddr) -> u128 {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    u128::from_be_bytes(address.octets())
}

/// The networks from which a listener takes connections; empty means everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(pub Vec<Network>);

impl AllowList {
    /// True if the peer may connect.
    pub fn allows(&self, peer: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|network| network.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_its_prefix_says() {
        let cases = [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "10.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("10.0.0.0/8", "::ffff:10.2.3.4", true),
        ];
        for (network, address, inside) in cases {
            let network: Network = network.parse().expect("the case is a network");
            assert_eq!(network.contains(address.parse().expect("the case is an address")), inside, "{network:?} {address}");
        }
        assert_eq!("10.0.0.0/33".parse::<Network>(), Err(NetworkError::PrefixLength));
        assert_eq!("ten".parse::<Network>(), Err(NetworkError::Address));
    }
}
