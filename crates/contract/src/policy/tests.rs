//! The real contract passes; each way of breaking it is found and named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::*;

/// The real `proto/` with one passage of one file replaced.
struct Edited {
    root: PathBuf,
    file: &'static str,
    old: &'static str,
    new: &'static str,
}

impl FileResolver for Edited {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let mut source = fs::read_to_string(self.root.join(name)).map_err(|_| protox::Error::file_not_found(name))?;
        if name == self.file {
            assert!(source.contains(self.old), "{name} no longer contains `{}`: choose another passage", self.old);
            source = source.replace(self.old, self.new);
        }
        File::from_source(name, &source)
    }
}

/// Every file with a service, by its domain where it has that one's name; they import the rest.
const DOMAINS: [&str; 10] =
    ["audit", "directory", "events", "fraud", "mesh", "payments", "replication", "vault", "wallet", "wallet/payment_methods"];

/// Reads the policies of some of the real contract's domains after replacing `old` with `new` in `file`.
fn read_edited(domains: &[&str], file: &'static str, old: &'static str, new: &'static str) -> Result<Policies, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut resolver = ChainFileResolver::new();
    resolver.add(Edited { root, file, old, new });
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    for domain in domains {
        let (domain, file) = domain.split_once('/').unwrap_or((domain, domain));
        compiler.open_file(format!("paymesh/{domain}/v1/{file}.proto")).expect("the edited contract compiles");
    }
    Policies::read(&compiler.encode_file_descriptor_set())
}

fn edited(file: &'static str, old: &'static str, new: &'static str) -> Result<Policies, Error> {
    read_edited(&DOMAINS, file, old, new)
}

fn error(file: &'static str, old: &'static str, new: &'static str) -> String {
    edited(file, old, new).expect_err(new).to_string()
}

const WALLET: &str = "paymesh/wallet/v1/wallet.proto";
const ENTRY: &str = "paymesh/events/v1/entry.proto";
const DIRECTORY: &str = "paymesh/directory/v1/directory.proto";

#[test]
fn the_contract_is_annotated_throughout() {
    let policies = Policies::read(FILE_DESCRIPTOR_SET).expect("the embedded contract");
    assert!(policies.methods().count() > 20);
    assert!(policies.methods().all(|method| !method.scopes.is_empty()), "no method is open to every caller today");
    assert!(policies.methods().all(|method| method.idempotent), "every write carries a request id");
}

#[test]
fn policies_say_what_the_annotations_say() {
    let balance = policies().method("/paymesh.wallet.v1.WalletService/GetBalance").expect("GetBalance");
    assert_eq!((balance.service.as_str(), balance.method.as_str()), ("paymesh.wallet.v1.WalletService", "GetBalance"));
    assert_eq!((balance.target, balance.scopes.as_slice()), (Target::Replica, &["wallets.read".to_owned()][..]));
    assert_eq!((balance.key.as_ref().map(KeyPath::as_str), &balance.shard_key), (Some("user_id"), &None));
    assert_eq!(balance.read_level.as_ref().map(KeyPath::as_str), Some("read.level"));
    assert!(balance.idempotent && balance.read_only && !balance.client_streaming && !balance.server_streaming);

    let enroll = policies().method("/paymesh.directory.v1.DirectoryService/EnrollUser").expect("EnrollUser");
    assert_eq!(enroll.target, Target::Zone);
    assert_eq!(enroll.key.as_ref().map(KeyPath::as_str), Some("residence_country"));
    assert_eq!(enroll.shard_key.as_ref().map(KeyPath::as_str), Some("user_id"));
    assert!(enroll.idempotent && !enroll.read_only);

    let stream = policies().method("/paymesh.payments.v1.PaymentService/StreamPayments").expect("StreamPayments");
    assert_eq!((stream.target, &stream.key), (Target::Local, &None));
    assert!(stream.client_streaming && stream.server_streaming);

    assert_eq!(policies().method("/grpc.health.v1.Health/Check"), None);
    assert_eq!(policies().class_of("paymesh.payments.v1.Payment", "reference"), Some(DataClass::Personal));
    assert_eq!(policies().class_of("paymesh.payments.v1.Payment", "payer_id"), Some(DataClass::Internal));
    assert_eq!(policies().class_of("paymesh.payments.v1.Payment", "nobody"), None);
    assert_eq!(policies().class_of("google.protobuf.Timestamp", "seconds"), None);
}

#[test]
fn no_audit_record_has_personal_data() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the embedded set");
    let classes = read_classes(&pool).expect("every field has a class");
    let fields = reached_fields(&pool, &classes, "paymesh.audit.v1.AuditRecord").expect("there is such a message");
    assert!(fields.len() > 20, "{fields:?}");
    let personal: Vec<_> = fields.iter().filter(|(_, class)| *class > DataClass::Internal).collect();
    assert!(personal.is_empty(), "an audit record has ids at most: {personal:?}");
}

/// The vault takes numbers in, and the acquirer's call is made where they are.
#[test]
fn a_card_number_is_in_requests_to_the_vault_and_in_no_answer() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the embedded set");
    let classes = read_classes(&pool).expect("every field has a class");
    let mut taken_in = BTreeSet::new();
    for method in policies().methods() {
        let service = pool.get_service_by_name(&method.service).expect("a service");
        let descriptor = service.methods().find(|each| each.name() == method.method).expect("a method");
        let cardholder = |message: &MessageDescriptor| {
            let name: &'static str = message.full_name().to_owned().leak();
            let fields = reached_fields(&pool, &classes, name).expect("there is such a message");
            fields.into_iter().filter(|(_, class)| *class == DataClass::Cardholder).map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(cardholder(&descriptor.output()), Vec::<String>::new(), "{}", method.path);
        if !cardholder(&descriptor.input()).is_empty() {
            taken_in.insert(method.method.as_str());
            assert_eq!(method.target, Target::Vault, "{}", method.path);
        }
    }
    assert_eq!(taken_in.into_iter().collect::<Vec<_>>(), ["Tokenize"]);
}

/// GetRequestOutcome is what a caller decides by whether to send money again; look-ups are answered by the directory, whose entries
/// never change; a vault has no copies, and neither has what fraud detection knows.
#[test]
fn every_keyed_read_says_how_old_it_may_be_and_where_it_was_read() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the embedded set");
    let mut levelled = Vec::new();
    for method in policies().methods() {
        let service = pool.get_service_by_name(&method.service).expect("a service");
        let descriptor = service.methods().find(|each| each.name() == method.method).expect("a method");
        let response_says = descriptor.output().fields().any(|field| match field.kind() {
            Kind::Message(message) => message.full_name() == "paymesh.common.v1.ReadSource",
            _ => false,
        });
        let keyed_read =
            method.read_only && method.key.is_some() && !matches!(method.target, Target::Directory | Target::Vault | Target::Fraud);
        let wanted = keyed_read && method.method != "GetRequestOutcome";
        assert_eq!(method.target == Target::Replica, wanted, "{}", method.path);
        assert_eq!((method.read_level.is_some(), response_says), (wanted, wanted), "{}", method.path);
        levelled.extend(wanted.then_some(method.method.as_str()));
    }
    assert_eq!(levelled, ["Subscribe", "GetPayment", "ListPayments", "ListPaymentMethods", "GetBalance", "GetStatement"]);
}

#[test]
fn a_read_level_that_is_none_is_named() {
    let table = [
        ("read: \"read\"", "", "GetBalance`: its route's read `` is missing, and its target needs it"),
        ("read: \"read\"", "read: \"level\"", "GetBalance`: its route's read `level` is not a field of the request"),
        ("read: \"read\"", "read: \"user_id\"", "GetBalance`: its route's read `user_id` is not a paymesh.common.v1.ReadOptions"),
        ("target: TARGET_REPLICA", "target: TARGET_HOME", "GetBalance`: its route's read `read` has no meaning for its target"),
        (
            "option idempotency_level = NO_SIDE_EFFECTS",
            "option idempotency_level = IDEMPOTENT",
            "GetBalance`: its route's read `read` may lead to a copy, and the method is not NO_SIDE_EFFECTS",
        ),
    ];
    for (old, new, end) in table {
        let message = error(WALLET, old, new);
        assert!(message.ends_with(end), "{message}");
    }
}

#[test]
fn the_unedited_contract_passes_the_way_that_the_tests_compile_it() {
    let policies = edited(WALLET, "user_id", "user_id").expect("the contract as it is");
    assert!(policies.methods().eq(super::policies().methods()));
}

#[test]
fn a_method_without_route_or_scopes_is_named() {
    let route = "option (options.v1.route) = {\n      target: TARGET_HOME\n      key: \"user_id\"\n    };";
    assert_eq!(
        error(WALLET, route, ""),
        "method `paymesh.wallet.v1.WalletService.OpenAccount` has no `paymesh.options.v1.route`: annotate it"
    );
    assert_eq!(
        error(WALLET, "target: TARGET_HOME", ""),
        "method `paymesh.wallet.v1.WalletService.OpenAccount` has no `paymesh.options.v1.route`: annotate it"
    );
    assert_eq!(
        error(DIRECTORY, "option (options.v1.auth) = {\n      scopes: [\"users.read\"]\n      nodes_too: true\n    };", ""),
        "method `paymesh.directory.v1.DirectoryService.LookUpUsers` has no `paymesh.options.v1.auth`: annotate it"
    );
}

#[test]
fn an_empty_list_of_scopes_is_not_a_missing_one() {
    let policies = edited(DIRECTORY, "scopes: [\"users.read\"]", "").expect("any authenticated caller may call");
    let method = policies.method("/paymesh.directory.v1.DirectoryService/LookUpUsers").expect("LookUpUsers");
    assert!(method.scopes.is_empty());
}

#[test]
fn a_key_that_is_no_scalar_of_the_request_is_named() {
    let table = [
        (DIRECTORY, "key: \"user_ids\"", "key: \"user_idz\"", "LookUpUsers`: its route's key `user_idz` is not a field of the request"),
        (DIRECTORY, "key: \"user_ids\"", "", "LookUpUsers`: its route's key `` is missing, and its target needs it"),
        (
            DIRECTORY,
            "shard_key: \"user_id\"",
            "shard_key: \"currency_codes.length\"",
            "EnrollUser`: its route's shard_key `currency_codes.length` passes through a field that is not one message",
        ),
        (DIRECTORY, "shard_key: \"user_id\"", "", "EnrollUser`: its route's shard_key `` is missing, and its target needs it"),
        (
            "paymesh/events/v1/events.proto",
            "target: TARGET_REPLICA",
            "target: TARGET_LOCAL",
            "Subscribe`: its route's key `zone` has no meaning for its target",
        ),
        (
            "paymesh/events/v1/events.proto",
            "target: TARGET_REPLICA",
            "target: TARGET_HOME",
            "Subscribe`: its route's shard_key `shard` has no meaning for its target",
        ),
    ];
    for (file, old, new, end) in table {
        let message = error(file, old, new);
        assert!(message.ends_with(end), "{message}");
    }
}

#[test]
fn a_field_without_a_class_is_named_wherever_it_is() {
    let held = "int64 held_minor_units = 3 [(options.v1.data_class) = DATA_CLASS_PERSONAL];";
    let message = "field `paymesh.wallet.v1.Balance.held_minor_units` has no `paymesh.options.v1.data_class`: annotate it";
    assert_eq!(error(WALLET, held, "int64 held_minor_units = 3;"), message);
    assert_eq!(error(WALLET, held, "int64 held_minor_units = 3 [(options.v1.data_class) = DATA_CLASS_UNSPECIFIED];"), message);
    let epoch = "uint64 payment_epoch = 3 [(options.v1.data_class) = DATA_CLASS_INTERNAL];";
    assert_eq!(
        error(ENTRY, epoch, "uint64 payment_epoch = 3;"),
        "field `paymesh.events.v1.Credit.payment_epoch` has no `paymesh.options.v1.data_class`: annotate it"
    );
}

#[test]
fn personal_data_in_the_open_part_of_an_entry_is_named() {
    assert_eq!(
        error(
            ENTRY,
            "uint64 asked = 3 [(options.v1.data_class) = DATA_CLASS_INTERNAL]",
            "string note = 3 [(options.v1.data_class) = DATA_CLASS_PERSONAL]"
        ),
        "field `paymesh.events.v1.RefundRequested.note` is DATA_CLASS_PERSONAL: what an entry's open part reaches is at most DATA_CLASS_INTERNAL"
    );
    let message = error(
        ENTRY,
        "uint64 at_us = 1 [(options.v1.data_class) = DATA_CLASS_INTERNAL]",
        "uint64 at_us = 1 [(options.v1.data_class) = DATA_CLASS_SECRET]",
    );
    assert!(message.starts_with("field `paymesh.events.v1.EntryOpen.at_us` is DATA_CLASS_SECRET"), "{message}");
}

#[test]
fn what_needs_no_sealing_in_the_sealed_part_is_named() {
    assert_eq!(
        error(
            ENTRY,
            "uint32 clearing_shard = 8 [(options.v1.data_class) = DATA_CLASS_PERSONAL]",
            "uint32 clearing_shard = 8 [(options.v1.data_class) = DATA_CLASS_INTERNAL]"
        ),
        "field `paymesh.events.v1.Posting.clearing_shard` is DATA_CLASS_INTERNAL: what an entry's sealed part reaches is at least DATA_CLASS_PERSONAL"
    );
}

#[test]
fn a_set_that_lost_its_options_or_its_entries_is_refused() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the embedded set");
    // What a typed descriptor set does: unknown options are gone.
    let mut typed = prost_types::FileDescriptorSet::default();
    typed.file.extend(pool.file_descriptor_protos().cloned());
    let lost = Policies::read(&prost::Message::encode_to_vec(&typed)).expect_err("no annotations");
    assert!(matches!(lost, Error::FieldUnannotated { .. }), "{lost}");

    assert!(matches!(Policies::read(&[0xff]), Err(Error::Malformed(_))));
    assert_eq!(
        Policies::read(&[]).expect_err("nothing in it").to_string(),
        "the descriptor set cannot be read: it does not define the option `paymesh.options.v1.data_class`"
    );
    assert_eq!(
        read_edited(&["wallet"], WALLET, "user_id", "user_id").expect_err("no events").to_string(),
        "the descriptor set cannot be read: it does not define the message `paymesh.events.v1.EntryOpen`"
    );
}
