//! The policies: what the annotations in `proto/` say of each method and each field, typed.
//!
//! [`Policies::read`] fails, naming the method or field, when an annotation is missing or makes no sense: a method without
//! route or scopes, a key that is not a field of the request, a field without a class, an open journal part that would
//! carry personal data out of its zone, a sealed part that holds what needs no sealing. The embedded set is known to pass:
//! a test reads it. Enforcement is left to the layers that ask.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::OnceLock,
};

use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
    prost_types::method_options::IdempotencyLevel,
};

use crate::{
    DataClass, FILE_DESCRIPTOR_SET, KeyPath,
    options::v1::{Auth, Route, Target as RouteTarget},
};

const ROUTE: &str = "paymesh.options.v1.route";
const AUTH: &str = "paymesh.options.v1.auth";
const DATA_CLASS: &str = "paymesh.options.v1.data_class";
/// The journal's message that may leave the zone.
const ENTRY_OPEN: &str = "paymesh.events.v1.EntryOpen";
/// The journal's message that stays in the zone.
const ENTRY_SEALED: &str = "paymesh.events.v1.EntrySealed";
/// The message by which a request says how old its answer may be.
const READ_OPTIONS: &str = "paymesh.common.v1.ReadOptions";
/// Google's own messages have no annotations: the field that holds one has the class.
const GOOGLE: &str = "google.protobuf";

/// The policies of the contract that this binary was built with.
///
/// # Panics
///
/// On the first call, if the embedded descriptor set is malformed. It cannot be: a test of this crate reads it.
pub fn policies() -> &'static Policies {
    static POLICIES: OnceLock<Policies> = OnceLock::new();
    POLICIES.get_or_init(|| match Policies::read(FILE_DESCRIPTOR_SET) {
        Ok(policies) => policies,
        Err(error) => panic!("the embedded contract is malformed, which its tests rule out: {error}"),
    })
}

/// What the annotations of a descriptor set say.
#[derive(Debug)]
pub struct Policies {
    methods: BTreeMap<String, MethodPolicy>,
    classes: HashMap<String, HashMap<String, DataClass>>,
}

/// What the annotations say of one method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodPolicy {
    /// As in a call's `:path`, for example `/paymesh.wallet.v1.WalletService/GetBalance`.
    pub path: String,
    /// The service's full name, for example `paymesh.wallet.v1.WalletService`.
    pub service: String,
    /// The method's name, for example `GetBalance`.
    pub method: String,
    /// The kind of place that answers.
    pub target: Target,
    /// The request field that names the place. `None` only for [`Target::Local`].
    pub key: Option<KeyPath>,
    /// The request field that picks the shard. Set for [`Target::Zone`]; for [`Target::Replica`] where the key is a journal's zone.
    pub shard_key: Option<KeyPath>,
    /// The request field that says at which level the call reads. Set for [`Target::Replica`], and only for it.
    pub read_level: Option<KeyPath>,
    /// The request field that names the request: `request_id`, of methods that have it.
    pub request_id: Option<KeyPath>,
    /// The scopes a caller needs, all of them. Empty: any authenticated caller.
    pub scopes: Vec<String>,
    /// Whether only nodes of the mesh call it: its streams do not share places with those of callers.
    pub nodes_only: bool,
    /// Whether nodes of the mesh call it on their own behalf too.
    pub nodes_too: bool,
    /// Whether a call may be sent again when its answer was lost (IDEMPOTENT or NO_SIDE_EFFECTS).
    pub idempotent: bool,
    /// Whether it changes nothing (NO_SIDE_EFFECTS).
    pub read_only: bool,
    /// Whether the caller sends a stream of requests.
    pub client_streaming: bool,
    /// Whether the answer is a stream.
    pub server_streaming: bool,
}

/// The kind of place that answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The node that the caller reached.
    Local,
    /// The leader of the shard of the user or payment that the key names.
    Home,
    /// The leader of the shard that the shard key names, in the zone of the country that the key names.
    Zone,
    /// The leader of the directory's shard of the user that the key names.
    Directory,
    /// As [`Target::Home`], the key and the shard key naming a shard where there is a shard key; or the node that the caller
    /// reached, where the read level is LOCAL and that node can answer.
    Replica,
    /// The vault of the zone of the user or vault token that the key names.
    Vault,
    /// Fraud detection for the user that the key names.
    Fraud,
    /// The vault of the zone that the key names.
    VaultOfZone,
}

/// What is wrong with a contract.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not a complete descriptor set, or lack a definition that the policies build on.
    #[error("the descriptor set cannot be read: {0}")]
    Malformed(String),
    /// A method without an option, or with an empty one.
    #[error("method `{method}` has no `{option}`: annotate it")]
    MethodUnannotated {
        /// The method's full name.
        method: String,
        /// The option's full name.
        option: &'static str,
    },
    /// A route whose keys do not fit its target or its request.
    #[error("method `{method}`: its route's {which} `{path}` {problem}")]
    Key {
        /// The method's full name.
        method: String,
        /// `key`, `shard_key` or `read`.
        which: &'static str,
        /// The annotated path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A field without a class.
    #[error("field `{field}` has no `{DATA_CLASS}`: annotate it")]
    FieldUnannotated {
        /// The field's full name.
        field: String,
    },
    /// A field of a journal entry's open part that may not leave the zone.
    #[error("field `{field}` is {}: what an entry's open part reaches is at most DATA_CLASS_INTERNAL", class.as_str_name())]
    OpenTooSensitive {
        /// The field's full name.
        field: String,
        /// Its class.
        class: DataClass,
    },
    /// A field of a journal entry's sealed part that needs no sealing.
    #[error("field `{field}` is {}: what an entry's sealed part reaches is at least DATA_CLASS_PERSONAL", class.as_str_name())]
    SealedTooOpen {
        /// The field's full name.
        field: String,
        /// Its class.
        class: DataClass,
    },
}

impl Policies {
    /// Reads an encoded `google.protobuf.FileDescriptorSet` whose custom options are still in it, and checks it whole:
    /// every method, and every field of every message that is not Google's.
    pub fn read(descriptor_set: &[u8]) -> Result<Self, Error> {
        let pool = DescriptorPool::decode(descriptor_set).map_err(|error| Error::Malformed(error.to_string()))?;
        let classes = read_classes(&pool)?;
        check_entries(&pool, &classes)?;
        Ok(Self { methods: read_methods(&pool)?, classes })
    }

    /// The policy of the method with this `:path`, for example `/paymesh.wallet.v1.WalletService/GetBalance`. `None` for
    /// methods that the contract does not have, among them gRPC's own health and reflection.
    pub fn method(&self, path: &str) -> Option<&MethodPolicy> {
        self.methods.get(path)
    }

    /// Every method, by path.
    pub fn methods(&self) -> impl Iterator<Item = &MethodPolicy> {
        self.methods.values()
    }

    /// Every scope that some method asks callers for.
    pub fn caller_scopes(&self) -> BTreeSet<&str> {
        let for_callers = self.methods.values().filter(|method| !method.nodes_only);
        for_callers.flat_map(|method| method.scopes.iter().map(String::as_str)).collect()
    }

    /// The class of a field, by its message's full name and its own name as in the `.proto` file. `None` when the
    /// contract has no such field; never [`DataClass::Unspecified`].
    pub fn class_of(&self, message_full_name: &str, field_name: &str) -> Option<DataClass> {
        self.classes.get(message_full_name)?.get(field_name).copied()
    }
}

type Classes = HashMap<String, HashMap<String, DataClass>>;

fn extension(pool: &DescriptorPool, name: &'static str) -> Result<ExtensionDescriptor, Error> {
    pool.get_extension_by_name(name).ok_or_else(|| Error::Malformed(format!("it does not define the option `{name}`")))
}

fn read_classes(pool: &DescriptorPool) -> Result<Classes, Error> {
    let option = extension(pool, DATA_CLASS)?;
    let mut classes = Classes::new();
    for message in pool.all_messages().filter(|message| !is_google(message) && !message.is_map_entry()) {
        let fields: Result<HashMap<String, DataClass>, Error> =
            message.fields().map(|field| Ok((field.name().to_owned(), read_class(&field, &option)?))).collect();
        classes.insert(message.full_name().to_owned(), fields?);
    }
    Ok(classes)
}

fn read_class(field: &FieldDescriptor, option: &ExtensionDescriptor) -> Result<DataClass, Error> {
    let class = match field.options().get_extension(option).as_ref() {
        Value::EnumNumber(number) => DataClass::try_from(*number).unwrap_or(DataClass::Unspecified),
        _ => DataClass::Unspecified,
    };
    match class {
        DataClass::Unspecified => Err(Error::FieldUnannotated { field: field.full_name().to_owned() }),
        class => Ok(class),
    }
}

fn is_google(message: &MessageDescriptor) -> bool {
    message.package_name() == GOOGLE
}

/// Holds the two parts of a journal entry to their bounds, through everything that they reach.
fn check_entries(pool: &DescriptorPool, classes: &Classes) -> Result<(), Error> {
    for (field, class) in reached_fields(pool, classes, ENTRY_OPEN)? {
        if class > DataClass::Internal {
            return Err(Error::OpenTooSensitive { field, class });
        }
    }
    for (field, class) in reached_fields(pool, classes, ENTRY_SEALED)? {
        if class < DataClass::Personal {
            return Err(Error::SealedTooOpen { field, class });
        }
    }
    Ok(())
}

/// Every field of a message and of the messages in it, with its class.
fn reached_fields(pool: &DescriptorPool, classes: &Classes, root: &'static str) -> Result<Vec<(String, DataClass)>, Error> {
    // A journal message under another name would escape its check.
    let root = pool.get_message_by_name(root).ok_or_else(|| Error::Malformed(format!("it does not define the message `{root}`")))?;
    let mut seen = BTreeSet::new();
    let mut waiting = vec![root];
    let mut fields = Vec::new();
    while let Some(message) = waiting.pop() {
        if is_google(&message) || !seen.insert(message.full_name().to_owned()) {
            continue;
        }
        for field in message.fields() {
            // The entries of a map have no classes of their own.
            if let Some(class) = classes.get(message.full_name()).and_then(|fields| fields.get(field.name())) {
                fields.push((field.full_name().to_owned(), *class));
            }
            if let Kind::Message(inner) = field.kind() {
                waiting.push(inner);
            }
        }
    }
    Ok(fields)
}

fn read_methods(pool: &DescriptorPool) -> Result<BTreeMap<String, MethodPolicy>, Error> {
    let route = extension(pool, ROUTE)?;
    let auth = extension(pool, AUTH)?;
    let mut methods = BTreeMap::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let policy = read_method(&method, &route, &auth)?;
        methods.insert(policy.path.clone(), policy);
    }
    Ok(methods)
}

fn read_method(method: &MethodDescriptor, route: &ExtensionDescriptor, auth: &ExtensionDescriptor) -> Result<MethodPolicy, Error> {
    let route: Route = read_option(method, route, ROUTE)?;
    let auth: Auth = read_option(method, auth, AUTH)?;
    let target = match route.target() {
        RouteTarget::Unspecified => return Err(Error::MethodUnannotated { method: method.full_name().to_owned(), option: ROUTE }),
        RouteTarget::Local => Target::Local,
        RouteTarget::Home => Target::Home,
        RouteTarget::Zone => Target::Zone,
        RouteTarget::Directory => Target::Directory,
        RouteTarget::Replica => Target::Replica,
        RouteTarget::Vault => Target::Vault,
        RouteTarget::Fraud => Target::Fraud,
        RouteTarget::VaultOfZone => Target::VaultOfZone,
    };
    let key = read_key(method, "key", &route.key, target != Target::Local)?;
    let shard_key = match target {
        // A user or a payment names its shard by itself.
        Target::Replica if route.shard_key.is_empty() => None,
        Target::Zone | Target::Replica => read_key(method, "shard_key", &route.shard_key, true)?,
        _ => read_key(method, "shard_key", &route.shard_key, false)?,
    };
    let read_level = read_options(method, &route.read, target)?;
    let is_read_only = |level: IdempotencyLevel| level == IdempotencyLevel::NoSideEffects;
    let idempotency = method
        .method_descriptor_proto()
        .options
        .as_ref()
        .map_or(IdempotencyLevel::IdempotencyUnknown, |options| options.idempotency_level());
    if target == Target::Replica && !is_read_only(idempotency) {
        let problem = "may lead to a copy, and the method is not NO_SIDE_EFFECTS";
        return Err(Error::Key { method: method.full_name().to_owned(), which: "read", path: route.read, problem });
    }
    let service = method.parent_service().full_name();
    Ok(MethodPolicy {
        path: format!("/{service}/{}", method.name()),
        service: service.to_owned(),
        method: method.name().to_owned(),
        target,
        key,
        shard_key,
        read_level,
        request_id: method.input().get_field_by_name("request_id").and_then(|_| KeyPath::resolve(&method.input(), "request_id").ok()),
        scopes: auth.scopes,
        nodes_only: auth.nodes_only,
        nodes_too: auth.nodes_too,
        idempotent: idempotency != IdempotencyLevel::IdempotencyUnknown,
        read_only: is_read_only(idempotency),
        client_streaming: method.is_client_streaming(),
        server_streaming: method.is_server_streaming(),
    })
}

/// A method's option, which must be there: absent is not the same as empty.
fn read_option<M: prost::Message + Default>(
    method: &MethodDescriptor,
    option: &ExtensionDescriptor,
    name: &'static str,
) -> Result<M, Error> {
    let options = method.options();
    let missing = || Error::MethodUnannotated { method: method.full_name().to_owned(), option: name };
    if !options.has_extension(option) {
        return Err(missing());
    }
    match options.get_extension(option).as_ref() {
        Value::Message(message) => {
            message.transcode_to().map_err(|error| Error::Malformed(format!("`{name}` of {}: {error}", method.full_name())))
        }
        _ => Err(missing()),
    }
}

/// A route's key: there when the target needs one, absent when it does not, and a field of the request.
fn read_key(method: &MethodDescriptor, which: &'static str, path: &str, needed: bool) -> Result<Option<KeyPath>, Error> {
    let wrong = |problem| Error::Key { method: method.full_name().to_owned(), which, path: path.to_owned(), problem };
    match (needed, path.is_empty()) {
        (false, true) => Ok(None),
        (false, false) => Err(wrong("has no meaning for its target")),
        (true, true) => Err(wrong("is missing, and its target needs it")),
        (true, false) => KeyPath::resolve(&method.input(), path).map(Some).map_err(wrong),
    }
}

/// Where a request says at which level it reads: for REPLICA, and only there.
fn read_options(method: &MethodDescriptor, path: &str, target: Target) -> Result<Option<KeyPath>, Error> {
    let wrong = |problem| Error::Key { method: method.full_name().to_owned(), which: "read", path: path.to_owned(), problem };
    match (target == Target::Replica, path.is_empty()) {
        (false, true) => return Ok(None),
        (false, false) => return Err(wrong("has no meaning for its target")),
        (true, true) => return Err(wrong("is missing, and its target needs it")),
        (true, false) => {}
    }
    let field = method.input().get_field_by_name(path).ok_or_else(|| wrong("is not a field of the request"))?;
    match field.kind() {
        Kind::Message(message) if message.full_name() == READ_OPTIONS && !field.is_list() => {
            KeyPath::resolve_enum(&method.input(), &format!("{path}.level")).map(Some).map_err(wrong)
        }
        _ => Err(wrong("is not a paymesh.common.v1.ReadOptions")),
    }
}

#[cfg(test)]
mod tests;
