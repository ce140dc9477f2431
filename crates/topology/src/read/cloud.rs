//! The block `cloud`, key by key.

use crate::{
    Kafka, Machines, Network, SITE_PREFIX_BITS_MAX, SITE_PREFIX_BITS_MIN, Topic,
    cloud::{PARTITIONS_MAX, TOPICS_MAX},
    problem::quote,
};

use super::{At, Field, Mapping, Reader};

/// Brokers of a cluster at most: what a cluster of MSK has room for.
const BROKERS_MAX: u64 = 90;
/// Zones of availability that brokers are spread over evenly.
const AVAILABILITY_ZONES: u64 = 3;
/// Milliseconds that an event is kept at least: a minute.
const TOPIC_RETENTION_MS_MIN: u64 = 60_000;
/// Milliseconds that an event is kept at most: ten years.
const TOPIC_RETENTION_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;
/// Bytes of a topic's name at most (Kafka's own bound is 249).
const TOPIC_NAME_BYTES_MAX: usize = 64;
/// Bytes of a domain at most, so that the names below it are names too.
const DOMAIN_BYTES_MAX: usize = 180;

/// What the block says, part by part.
#[derive(Debug)]
pub(crate) struct DraftCloud {
    pub(crate) domain: Option<String>,
    pub(crate) machines: Option<Machines>,
    pub(crate) kafka: Option<Kafka>,
    pub(crate) protected: Option<bool>,
    pub(crate) regions: Option<At<Vec<DraftSite>>>,
}

#[derive(Debug)]
pub(crate) struct DraftSite {
    pub(crate) region: At<String>,
    pub(crate) aws_region: Option<At<String>>,
    pub(crate) network: Option<At<Network>>,
    pub(crate) replica_of: Option<At<String>>,
}

impl Reader<'_> {
    pub(super) fn cloud(&mut self, field: &Field<'_>) -> DraftCloud {
        let Some(cloud) = self.mapping(field, Some(&["domain", "protected", "machines", "kafka", "regions"])) else {
            return DraftCloud { domain: None, machines: None, kafka: None, protected: None, regions: None };
        };
        DraftCloud {
            domain: self.required(&cloud, "domain").and_then(|field| self.domain(field)),
            machines: self.required(&cloud, "machines").and_then(|field| self.machines(field)),
            kafka: self.required(&cloud, "kafka").and_then(|field| self.kafka(field)),
            protected: match cloud.find("protected") {
                Some(field) => self.flag(field).map(|flag| flag.value),
                None => Some(true),
            },
            regions: self.each(&cloud, "regions", Self::site),
        }
    }

    fn domain(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last_is_name = text.rsplit('.').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_lowercase()));
        let valid = text.len() <= DOMAIN_BYTES_MAX && text.contains('.') && text.split('.').all(label) && last_is_name;
        if !valid {
            self.say(field, format!("must be a DNS name in lower case such as pay.example.com, not {}", quote(text)));
        }
        valid.then(|| text.to_owned())
    }

    fn machines(&mut self, field: &Field<'_>) -> Option<Machines> {
        let machines = self.mapping(field, Some(&["node", "edge", "vault", "database", "cache", "broker"]))?;
        // All are looked at before any is given up: every mistake is said.
        let [node, edge, vault, database, cache, broker] =
            ["node", "edge", "vault", "database", "cache", "broker"].map(|key| self.machine(&machines, key));
        Some(Machines { node: node?, edge: edge?, vault: vault?, database: database?, cache: cache?, broker: broker? })
    }

    fn machine(&mut self, machines: &Mapping<'_>, key: &str) -> Option<String> {
        let field = self.required(machines, key)?;
        self.machine_name(field)
    }

    /// The name of a kind of machine, such as c5.large.
    pub(super) fn machine_name(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        let part = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let valid = text.len() <= 32
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.split_once('.').is_some_and(|(family, size)| part(family) && !size.is_empty() && part(size));
        if !valid {
            self.say(field, format!("must be a kind of machine such as c5.large, not {}", quote(text)));
        }
        valid.then(|| text.to_owned())
    }

    fn kafka(&mut self, field: &Field<'_>) -> Option<Kafka> {
        let kafka = self.mapping(field, Some(&["brokers", "replication_factor", "partitions_per_topic", "topics"]))?;
        let brokers = self.required(&kafka, "brokers").and_then(|field| {
            let brokers = self.whole(field, AVAILABILITY_ZONES..=BROKERS_MAX)?;
            let even = brokers.is_multiple_of(AVAILABILITY_ZONES);
            if !even {
                let message = format!("must be a multiple of {AVAILABILITY_ZONES}, one for each zone of availability, not {brokers}");
                self.say(field, message);
            }
            even.then_some(brokers)
        });
        let copies = 1..=brokers.unwrap_or(BROKERS_MAX);
        let replication_factor = self.required(&kafka, "replication_factor").and_then(|field| self.whole(field, copies.clone()));
        let partitions_per_topic = self.required(&kafka, "partitions_per_topic").and_then(|field| self.whole(field, 1..=PARTITIONS_MAX));
        let topics = self.required(&kafka, "topics").and_then(|field| {
            let mapping = self.mapping(field, None)?;
            if mapping.fields.len() > TOPICS_MAX {
                self.say(field, format!("must have at most {TOPICS_MAX} entries, not {}", mapping.fields.len()));
                return None;
            }
            let topics: Vec<Option<Topic>> = mapping.fields.iter().map(|(name, field)| self.topic(name, field, copies.clone())).collect();
            topics.into_iter().collect::<Option<Vec<_>>>()
        });
        Some(Kafka {
            brokers: brokers?,
            replication_factor: replication_factor?,
            partitions_per_topic: partitions_per_topic?,
            topics: topics?,
        })
    }

    fn topic(&mut self, name: &str, field: &Field<'_>, copies: std::ops::RangeInclusive<u64>) -> Option<Topic> {
        let valid = (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-');
        if !valid {
            self.say(field, format!("the name of a topic is 1 to {TOPIC_NAME_BYTES_MAX} of a-z, 0-9, - and _"));
        }
        let topic = self.mapping(field, Some(&["partitions", "replication_factor", "retention_ms"]))?;
        let partitions = self.required(&topic, "partitions").and_then(|field| self.whole(field, 1..=PARTITIONS_MAX));
        let replication_factor = self.required(&topic, "replication_factor").and_then(|field| self.whole(field, copies));
        let retention = TOPIC_RETENTION_MS_MIN..=TOPIC_RETENTION_MS_MAX;
        let retention_ms = self.required(&topic, "retention_ms").and_then(|field| self.whole(field, retention));
        let (partitions, replication_factor, retention_ms) = (partitions?, replication_factor?, retention_ms?);
        valid.then(|| Topic { name: name.to_owned(), partitions, replication_factor, retention_ms })
    }

    fn site(&mut self, region: &str, field: &Field<'_>) -> DraftSite {
        let mut draft = DraftSite { region: field.with(region.to_owned()), aws_region: None, network: None, replica_of: None };
        let Some(site) = self.mapping(field, Some(&["aws_region", "network", "replica_of"])) else { return draft };
        draft.aws_region = self.required(&site, "aws_region").and_then(|field| self.aws_region(field)).map(|(at, name)| at.with(name));
        draft.network = self.required(&site, "network").and_then(|field| self.site_network(field));
        draft.replica_of = site.find("replica_of").and_then(|field| Some(field.with(self.text(field)?.to_owned())));
        draft
    }

    /// The name of an AWS region, and where it stands.
    pub(super) fn aws_region<'f, 'a>(&mut self, field: &'f Field<'a>) -> Option<(&'f Field<'a>, String)> {
        let text = self.text(field)?;
        let parts: Vec<&str> = text.split('-').collect();
        let valid = text.len() <= 32
            && matches!(parts.as_slice(), [words @ .., number]
                if words.len() >= 2
                    && words.iter().all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
                    && !number.is_empty()
                    && number.bytes().all(|byte| byte.is_ascii_digit()));
        if !valid {
            self.say(field, format!("must be an AWS region such as eu-west-1, not {}", quote(text)));
        }
        valid.then(|| (field, text.to_owned()))
    }

    /// Addresses that are private: 10.0.0.0/8. What Kubernetes gives its services is elsewhere.
    fn site_network(&mut self, field: &Field<'_>) -> Option<At<Network>> {
        let network = self.network(field)?;
        let valid = network.is_in(10) && (SITE_PREFIX_BITS_MIN..=SITE_PREFIX_BITS_MAX).contains(&network.prefix_bits());
        if !valid {
            let message =
                format!("must be a network within 10.0.0.0/8 of /{SITE_PREFIX_BITS_MIN} to /{SITE_PREFIX_BITS_MAX}, not {network}");
            self.say(field, message);
        }
        valid.then(|| field.with(network))
    }
}
