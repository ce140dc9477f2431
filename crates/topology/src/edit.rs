//! Adds a region to the text of a configuration, and takes one out, as an operator would: with every comment, blank line and order as it was.
//!
//! `text` finds the place in the text and writes there, in the style of what stands beside it. What comes out is then read anew and compared with what
//! was meant: the old tree with exactly the change. An edit that cannot be shown to be that, and nothing else, is refused, and so is one after which the whole is no
//! configuration. Nothing is written to a file here.

mod plain;
mod text;

use paymesh_types::{RegionName, ZoneName};

use self::{
    plain::Plain,
    text::{Document, Uneditable},
};
use crate::{Compliance, Database, Endpoint, Errors, Network, Service, Topology, topology::parse_tree};

/// A region to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRegion {
    /// Its name: no other region's.
    pub name: RegionName,
    /// The zone that it joins.
    pub zone: ZoneName,
    /// What its nodes run.
    pub services: Vec<Service>,
    /// What its database is to the mesh.
    pub database: Database,
    /// The regimes that it is under.
    pub compliance: Vec<Compliance>,
    /// Where its nodes take gRPC.
    pub grpc: Endpoint,
    /// Where its nodes serve HTTP.
    pub http: Endpoint,
    /// Where it is deployed. `None` where the configuration has no `cloud`.
    pub site: Option<NewSite>,
}

/// The place of a region to add in the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSite {
    /// The AWS region.
    pub aws_region: String,
    /// Its addresses.
    pub network: Network,
    /// The master whose database it has, where it has to be said.
    pub replica_of: Option<RegionName>,
}

/// Why a text was not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no configuration as it is.
    #[error("{0}")]
    Before(Errors),
    /// It would be none afterwards.
    #[error("{0}")]
    After(Errors),
    /// There is a region of that name.
    #[error("there is a region {0} already")]
    Taken(RegionName),
    /// It is written in a way that the edit cannot be done in.
    #[error("{key}: {why}: edit the file by hand")]
    Unclear {
        /// The block.
        key: String,
        /// What is in the way.
        why: &'static str,
    },
    /// The edited text does not say what was meant. Nothing of it can be used.
    #[error("the edited text would say something else than was meant: edit the file by hand")]
    Unproven,
}

impl Uneditable {
    fn at(self, key: &str) -> EditError {
        EditError::Unclear { key: key.to_owned(), why: self.0 }
    }
}

/// Adds a region. Returns the text with it, and what that says.
///
/// # Errors
/// The text is no configuration, before or after; or it is written in a way that it cannot be edited in.
pub fn add_region(file_name: &str, yaml: &str, new: &NewRegion) -> Result<(String, Topology), EditError> {
    let before = Topology::parse(file_name, yaml).map_err(EditError::Before)?;
    if before.region(&new.name).is_some() {
        return Err(EditError::Taken(new.name.clone()));
    }
    let name = new.name.as_str();
    let mut fields = vec![
        ("primary", Plain::Flag(false)),
        ("services", Plain::texts(new.services.iter().map(|service| service.as_str()))),
        ("database", Plain::text(new.database.as_str())),
    ];
    if !new.compliance.is_empty() {
        fields.push(("compliance", Plain::texts(new.compliance.iter().map(|regime| regime.as_str()))));
    }
    let region = Plain::map(fields);
    let endpoints = Plain::map([("grpc", Plain::text(new.grpc.to_string())), ("http", Plain::text(new.http.to_string()))]);
    let mut changes = vec![
        Change::Entry(vec!["regions"], name, region),
        Change::Item(vec!["zones", new.zone.as_str(), "regions"], name),
        Change::Entry(vec!["endpoints"], name, endpoints),
    ];
    if let (Some(site), true) = (&new.site, before.cloud().is_some()) {
        let mut fields = vec![("aws_region", Plain::text(&site.aws_region)), ("network", Plain::text(site.network.to_string()))];
        fields.extend(site.replica_of.as_ref().map(|source| ("replica_of", Plain::text(source.as_str()))));
        changes.push(Change::Entry(vec!["cloud", "regions"], name, Plain::map(fields)));
    }
    edit(file_name, yaml, &changes)
}

/// Takes a region out. Returns the text without it, and what that says. Whether the mesh can be without the region is the caller's to say, as far as
/// the configuration is sound without it.
///
/// # Errors
/// As [`add_region`].
pub fn retire_region(file_name: &str, yaml: &str, region: &RegionName) -> Result<(String, Topology), EditError> {
    let before = Topology::parse(file_name, yaml).map_err(EditError::Before)?;
    let name = region.as_str();
    let zone = before.region(region).map(|region| region.zone.to_string()).unwrap_or_default();
    let mut changes = vec![
        Change::WithoutEntry(vec!["regions"], name),
        Change::WithoutItem(vec!["zones", &zone, "regions"], name),
        Change::WithoutEntry(vec!["endpoints"], name),
    ];
    if before.cloud().is_some() {
        changes.push(Change::WithoutEntry(vec!["cloud", "regions"], name));
    }
    edit(file_name, yaml, &changes)
}

/// One change, by the path to the block that it is of.
enum Change<'a> {
    /// A key more in a mapping, at its end.
    Entry(Vec<&'a str>, &'a str, Plain),
    /// An item more of a list, at its end.
    Item(Vec<&'a str>, &'a str),
    WithoutEntry(Vec<&'a str>, &'a str),
    WithoutItem(Vec<&'a str>, &'a str),
}

fn edit(file_name: &str, yaml: &str, changes: &[Change<'_>]) -> Result<(String, Topology), EditError> {
    let tree = |text: &str| parse_tree(file_name, text);
    let mut meant = Plain::from(&tree(yaml).map_err(EditError::Before)?);
    let mut text = yaml.to_owned();
    for change in changes {
        let root = tree(&text).map_err(EditError::After)?;
        let document = Document::new(&text, &root);
        let (path, edited, done) = match change {
            Change::Entry(path, key, value) => {
                (path, document.with_entry(path, key, value), meant.at(path).is_some_and(|map| map.add(key, value.clone())))
            }
            Change::Item(path, item) => (path, document.with_item(path, item), meant.at(path).is_some_and(|list| list.push(item))),
            Change::WithoutEntry(path, key) => (path, document.without_entry(path, key), meant.at(path).is_some_and(|map| map.remove(key))),
            Change::WithoutItem(path, item) => {
                (path, document.without_item(path, item), meant.at(path).is_some_and(|list| list.drop(item)))
            }
        };
        text = edited.map_err(|problem| problem.at(&path.join(".")))?;
        if !done {
            return Err(EditError::Unproven);
        }
    }
    let topology = Topology::parse(file_name, &text).map_err(EditError::After)?;
    let says = Plain::from(&tree(&text).map_err(EditError::After)?);
    if says != meant {
        return Err(EditError::Unproven);
    }
    Ok((text, topology))
}
