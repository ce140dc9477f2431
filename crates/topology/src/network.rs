//! A range of addresses: `10.0.0.0/8`.

use std::{fmt, net::IpAddr, str::FromStr};

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix_bits: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// It is neither an address nor one with the number of bits that count.
    #[error("a network is an IP address and how many of its bits count, such as 10.0.0.0/8 or 2001:db8::/32, or an address alone")]
    Shape,
    /// Bits are set that do not count: another network may be meant.
    #[error("a network's address is its first, whose other bits are zero")]
    NotItsFirst,
}

impl Network {
    /// Whether an address is one of its. An IPv4 address is the same however it is written.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => bits(self.first) == bits(address) & self.mask(),
            _ => false,
        }
    }

    /// Whether two networks have an address in common: the larger has the first of the smaller.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The first of its addresses.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// How many bits its addresses have in common.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Whether its addresses are IPv4, and their first byte is `byte`.
    pub(crate) fn is_in(&self, byte: u8) -> bool {
        matches!(self.first, IpAddr::V4(first) if first.octets()[0] == byte && self.prefix_bits >= 8)
    }

    /// The bits that count.
    fn mask(&self) -> u128 {
        let width = if self.first.is_ipv4() { 32 } else { 128 };
        let free = u32::from(width - self.prefix_bits);
        // All bits of an IPv6 address may be free.
        u128::MAX.checked_shl(free).unwrap_or_default()
    }
}

/// An address as a number.
fn bits(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (first, prefix_bits) = match text.split_once('/') {
            Some((first, prefix_bits)) => (first, Some(prefix_bits)),
            None => (text, None),
        };
        let first: IpAddr = first.parse().map_err(|_| InvalidNetwork::Shape)?;
        // Written as IPv6, its bits would be counted otherwise.
        if first != first.to_canonical() {
            return Err(InvalidNetwork::Shape);
        }
        let width = if first.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix_bits {
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= width).ok_or(InvalidNetwork::Shape)?
            }
            Some(_) => return Err(InvalidNetwork::Shape),
            None => width,
        };
        let network = Self { first, prefix_bits };
        if network.contains(first) { Ok(network) } else { Err(InvalidNetwork::NotItsFirst) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
        ] {
            let parsed: Network = network.parse().expect(network);
            assert!(parsed.contains(inside.parse().expect(inside)), "{inside} is in {network}");
            assert!(!parsed.contains(outside.parse().expect(outside)), "{outside} is not in {network}");
        }
        let all: Network = "0.0.0.0/0".parse().expect("all");
        assert!(all.contains("203.0.113.9".parse().expect("an address")) && !all.contains("::1".parse().expect("an address")));
        assert!("::/0".parse::<Network>().expect("all").contains("2001:db8::1".parse().expect("an address")));
        assert_eq!("10.0.0.0/8".parse::<Network>().expect("a network").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn networks_overlap_when_one_is_in_the_other() {
        for (one, other, overlap) in [
            ("10.0.0.0/16", "10.0.0.0/16", true),
            ("10.0.0.0/16", "10.0.240.0/20", true),
            ("10.0.0.0/16", "10.1.0.0/16", false),
            ("10.0.16.0/20", "10.0.0.0/20", false),
            ("10.0.0.0/8", "::/0", false),
            ("::/0", "2001:db8::/32", true),
        ] {
            let (one, other): (Network, Network) = (one.parse().expect(one), other.parse().expect(other));
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (overlap, overlap), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "example.org", "::/129", "::ffff:10.0.0.0/104", "10.0.0.0/8/8"]
        {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::Shape), "{text}");
        }
        for text in ["10.0.0.1/8", "2001:db8::1/32", "1.2.3.4/0"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::NotItsFirst), "{text}");
        }
    }
}
