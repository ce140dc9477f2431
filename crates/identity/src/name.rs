//! What a certificate calls its owner: a node, or a caller.

use std::{fmt, str::FromStr};

use paymesh_types::RegionName;

/// Bytes of a mesh's or a service's name at most.
const PART_BYTES_MAX: usize = 63;

/// A node's name, as the URI in its certificate says it: `spiffe://MESH/region/REGION/SERVICE`.
///
/// The form is that of a SPIFFE ID (<https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/>), with the mesh as its trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName {
    mesh: String,
    region: RegionName,
    service: String,
}

/// It is no such name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a node's name is spiffe://MESH/region/REGION/SERVICE, in lower case")]
pub struct NotANodeName;

impl NodeName {
    /// The service of a node that runs all of its region's.
    pub const NODE: &str = "node";
    /// The service of an edge: it takes calls of callers for its region's node, and may do nothing that nodes may.
    pub const EDGE: &str = "edge";

    /// The name of a service's nodes in a region. None: the mesh or the service cannot be in a URI.
    pub fn new(mesh: &str, region: &RegionName, service: &str) -> Option<Self> {
        let named = is_part(mesh) && is_part(service);
        named.then(|| Self { mesh: mesh.to_owned(), region: region.clone(), service: service.to_owned() })
    }

    /// Whether it is a node's, rather than that of something else that runs in a region.
    pub fn is_node(&self) -> bool {
        self.service == Self::NODE
    }

    /// Whether it is an edge's.
    pub fn is_edge(&self) -> bool {
        self.service == Self::EDGE
    }

    /// The mesh, which region-config names.
    pub fn mesh(&self) -> &str {
        &self.mesh
    }

    /// The region.
    pub fn region(&self) -> &RegionName {
        &self.region
    }

    /// The service.
    pub fn service(&self) -> &str {
        &self.service
    }
}

/// A caller's name, as the URI in its certificate says it: `spiffe://MESH/caller/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerName {
    mesh: String,
    name: String,
}

/// It is no such name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a caller's name is spiffe://MESH/caller/NAME, in lower case")]
pub struct NotACallerName;

impl CallerName {
    /// The name of a caller. None: the mesh or the name cannot be in a URI.
    pub fn new(mesh: &str, name: &str) -> Option<Self> {
        (is_part(mesh) && is_part(name)).then(|| Self { mesh: mesh.to_owned(), name: name.to_owned() })
    }

    /// The mesh, which region-config names.
    pub fn mesh(&self) -> &str {
        &self.mesh
    }

    /// What access.yaml calls it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/caller/{}", self.mesh, self.name)
    }
}

impl FromStr for CallerName {
    type Err = NotACallerName;

    fn from_str(text: &str) -> Result<Self, NotACallerName> {
        let parts: Vec<&str> = text.strip_prefix("spiffe://").ok_or(NotACallerName)?.split('/').collect();
        let [mesh, "caller", name] = parts[..] else { return Err(NotACallerName) };
        Self::new(mesh, name).ok_or(NotACallerName)
    }
}

/// What region-config takes for a mesh's name, and SPIFFE for a trust domain and for a segment of a path.
fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=PART_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/region/{}/{}", self.mesh, self.region, self.service)
    }
}

impl FromStr for NodeName {
    type Err = NotANodeName;

    fn from_str(text: &str) -> Result<Self, NotANodeName> {
        let parts: Vec<&str> = text.strip_prefix("spiffe://").ok_or(NotANodeName)?.split('/').collect();
        let [mesh, "region", region, service] = parts[..] else { return Err(NotANodeName) };
        let region = region.parse().map_err(|_| NotANodeName)?;
        Self::new(mesh, &region, service).ok_or(NotANodeName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let region = "eu_west".parse().expect("a region");
        let name = NodeName::new("paymesh-dev", &region, NodeName::NODE).expect("a name");
        assert_eq!(name.to_string(), "spiffe://paymesh-dev/region/eu_west/node");
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn a_caller_is_no_node_and_no_node_a_caller() {
        let name = CallerName::new("m", "checkout").expect("a name");
        assert_eq!(name.to_string(), "spiffe://m/caller/checkout");
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!("spiffe://m/caller/checkout".parse::<NodeName>(), Err(NotANodeName));
        for wrong in [
            "spiffe://m/region/eu_west/node",
            "spiffe://m/caller/",
            "spiffe://m/caller",
            "spiffe://m/caller/a/b",
            "spiffe://m/caller/A",
            "spiffe://m/caller/a%2fb",
            "spiffe:///caller/a",
            "https://m/caller/a",
        ] {
            assert_eq!(wrong.parse::<CallerName>(), Err(NotACallerName), "{wrong}");
        }
    }

    #[test]
    fn what_is_almost_a_name_is_none() {
        for wrong in [
            "",
            "spiffe://",
            "spiffe://m/region/eu_west",
            "spiffe://m/region/eu_west/node/",
            "spiffe://m/region/eu_west/node/more",
            "spiffe://m/regions/eu_west/node",
            "spiffe://m/region/EU_WEST/node",
            "spiffe://M/region/eu_west/node",
            "spiffe:///region/eu_west/node",
            "spiffe://m/region//node",
            "spiffe://m@x/region/eu_west/node",
            "spiffe://m:1/region/eu_west/node",
            "SPIFFE://m/region/eu_west/node",
            "https://m/region/eu_west/node",
            "spiffe://m/region/eu_west/no%64e",
            "spiffe://m/region/eu_west/node?x",
            "spiffe://m/region/eu_west/node#x",
            "spiffe://m/region/eu_west\0/node",
            " spiffe://m/region/eu_west/node",
        ] {
            assert_eq!(wrong.parse::<NodeName>(), Err(NotANodeName), "{wrong:?}");
        }
    }
}
