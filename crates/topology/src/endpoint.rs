//! Where a node listens and its peers find it: `host:port`.
//!
//! An endpoint is written, never looked up: nothing here asks a name server. Binding and dialling are the mesh's.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Bytes of a host name at most (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// Bytes of one label of a host name at most.
const LABEL_BYTES_MAX: usize = 63;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// There is no port, or an IPv6 address without brackets.
    #[error("an endpoint is host:port, such as 127.0.0.1:7101 or [::1]:7101")]
    Shape,
    /// The port is no number a node can listen on.
    #[error("a port is 1 to 65535")]
    Port,
    /// The host is neither an IP address nor a host name.
    #[error("a host is an IP address or a host name (RFC 1123)")]
    Host,
}

impl Endpoint {
    /// The host: an IP address without brackets, or a host name in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether only this machine can reach it: a loopback address, or the name `localhost`. Any other name is not, whatever
    /// it would resolve to.
    pub fn is_loopback(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// The address to listen on or to dial, when the host is an IP address or `localhost` (127.0.0.1). `None` for other
    /// names: those take a resolver.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.ip().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// Whether two listeners could not have both: the same host and port, or the same port where one takes every address.
    pub fn overlaps(&self, other: &Self) -> bool {
        let takes_every_address = |endpoint: &Self| endpoint.ip().is_some_and(|ip| ip.is_unspecified());
        let same_host = match (self.ip(), other.ip()) {
            (Some(one), Some(two)) => one == two,
            (None, None) => self.host == other.host,
            _ => false,
        };
        self.port == other.port && (same_host || takes_every_address(self) || takes_every_address(other))
    }

    fn ip(&self) -> Option<IpAddr> {
        if self.host == "localhost" {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        self.host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidEndpoint::Shape)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address = rest.strip_suffix(']').ok_or(InvalidEndpoint::Shape)?;
                address.parse::<Ipv6Addr>().map_err(|_| InvalidEndpoint::Host)?.to_string()
            }
            None if host.contains(':') => return Err(InvalidEndpoint::Shape),
            None => host_name(host).ok_or(InvalidEndpoint::Host)?,
        };
        // One spelling for each port: no sign, no leading zero.
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let port = digits.then(|| port.parse().ok()).flatten().ok_or(InvalidEndpoint::Port)?;
        Ok(Self { host, port })
    }
}

/// An IPv4 address, or a host name of RFC 1123 in lower case.
fn host_name(text: &str) -> Option<String> {
    if text.parse::<Ipv4Addr>().is_ok() {
        return Some(text.to_owned());
    }
    let label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits is a mistyped address, such as 127.0.0.256 or 127.1, which resolvers read in their own ways.
    let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    (text.len() <= HOST_BYTES_MAX && text.split('.').all(label) && !last_is_number).then(|| text.to_ascii_lowercase())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().expect(text)
    }

    #[test]
    fn endpoints_are_a_host_and_a_port() {
        for good in ["127.0.0.1:7101", "[::1]:7101", "localhost:1", "eu-west.paymesh.internal:65535", "0.0.0.0:80", "a1:80"] {
            assert_eq!(endpoint(good).to_string(), good);
        }
        assert_eq!(endpoint("Node.EU:80").to_string(), "node.eu:80");
        assert_eq!(endpoint("[0:0::1]:80").to_string(), "[::1]:80");
        let table = [
            ("", InvalidEndpoint::Shape),
            ("127.0.0.1", InvalidEndpoint::Shape),
            ("::1:80", InvalidEndpoint::Shape),
            ("[::1:80", InvalidEndpoint::Shape),
            ("http://a:80", InvalidEndpoint::Shape),
            ("a:", InvalidEndpoint::Port),
            ("a:0", InvalidEndpoint::Port),
            ("a:080", InvalidEndpoint::Port),
            ("a:+80", InvalidEndpoint::Port),
            ("a:65536", InvalidEndpoint::Port),
            ("a:80/", InvalidEndpoint::Port),
            (":80", InvalidEndpoint::Host),
            ("[127.0.0.1]:80", InvalidEndpoint::Host),
            ("127.0.0.256:80", InvalidEndpoint::Host),
            ("127.1:80", InvalidEndpoint::Host),
            ("0127.0.0.1:80", InvalidEndpoint::Host),
            ("-a:80", InvalidEndpoint::Host),
            ("a..b:80", InvalidEndpoint::Host),
            ("a_b:80", InvalidEndpoint::Host),
            ("a b:80", InvalidEndpoint::Host),
        ];
        for (wrong, why) in table {
            assert_eq!(wrong.parse::<Endpoint>(), Err(why), "{wrong}");
        }
    }

    #[test]
    fn only_loopback_addresses_and_localhost_are_loopback() {
        for yes in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "LOCALHOST:1"] {
            assert!(endpoint(yes).is_loopback(), "{yes}");
            assert!(endpoint(yes).socket_addr().is_some_and(|address| address.ip().to_canonical().is_loopback()), "{yes}");
        }
        for no in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example.com:1", "node:1"] {
            assert!(!endpoint(no).is_loopback(), "{no}");
        }
        assert_eq!(endpoint("node:1").socket_addr(), None);
    }

    #[test]
    fn two_listeners_overlap_when_they_could_not_both_bind() {
        let table = [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "localhost:80", true),
            ("0.0.0.0:80", "10.0.0.1:80", true),
            ("0.0.0.0:80", "10.0.0.1:81", false),
            ("[::]:80", "10.0.0.1:80", true),
            ("node:80", "0.0.0.0:80", true),
            ("node:80", "NODE:80", true),
            ("node:80", "other:80", false),
        ];
        for (one, two, overlap) in table {
            assert_eq!(endpoint(one).overlaps(&endpoint(two)), overlap, "{one} {two}");
            assert_eq!(endpoint(two).overlaps(&endpoint(one)), overlap, "{two} {one}");
        }
    }
}
