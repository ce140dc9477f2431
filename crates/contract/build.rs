//! Compiles `proto/` without `protoc`: stubs, the descriptor set, and a `Debug` that withholds what is sensitive.
//!
//! Writes to `OUT_DIR`: one file for each package, `descriptor_set.bin`, `redacted.rs` (the `Debug` of every message with
//! a field of class PERSONAL or above) and `debug_table.rs` (for the tests: every message's name and its `Debug`).

#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value};

/// Where the contract is, seen from this crate.
const PROTO_DIR: &str = "../../proto";
/// The field option that holds a field's class.
const DATA_CLASS: &str = "paymesh.options.v1.data_class";
/// `DATA_CLASS_PERSONAL`: classes of this number and above are withheld.
const PERSONAL: i32 = 3;
/// The package prefix of messages that are ours; the others are Google's, and prost-types has them.
const OURS: &str = "paymesh.";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_DIR}");
    println!("cargo:rerun-if-changed=build.rs");

    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join(PROTO_DIR);
    let mut files = Vec::new();
    find_protos(&root, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // The typed set would drop the options, and with them every policy.
    fs::write(out.join("descriptor_set.bin"), compiler.encode_file_descriptor_set())?;

    let pool = compiler.descriptor_pool();
    let sensitive = sensitive_messages(&pool)?;
    fs::write(out.join("redacted.rs"), redacted(&sensitive)?)?;
    fs::write(out.join("debug_table.rs"), debug_table(&pool)?)?;

    tonic_prost_build::configure()
        .codec_path("crate::codec::Counted")
        .skip_debug(sensitive.iter().map(|message| format!(".{}", message.descriptor.full_name())))
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn find_protos(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// A message with at least one sensitive field.
struct Sensitive {
    descriptor: MessageDescriptor,
    /// The numbers of those fields.
    fields: BTreeSet<u32>,
}

fn our_messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> {
    pool.all_messages().filter(|message| message.package_name().starts_with(OURS) && !message.is_map_entry())
}

fn sensitive_messages(pool: &DescriptorPool) -> Result<Vec<Sensitive>, Box<dyn Error>> {
    let class = pool.get_extension_by_name(DATA_CLASS).ok_or_else(|| format!("proto/ does not define {DATA_CLASS}"))?;
    let mut found = Vec::new();
    for descriptor in our_messages(pool) {
        let fields: BTreeSet<u32> =
            descriptor.fields().filter(|field| class_number(field, &class) >= PERSONAL).map(|field| field.number()).collect();
        if fields.is_empty() {
            continue;
        }
        // Prost leaves the `Debug` of such a message's oneofs to us too. None has one; who needs it parts the message.
        if descriptor.oneofs().any(|oneof| !oneof.is_synthetic()) {
            return Err(format!("{}: move its sensitive fields or its oneof to a message of their own", descriptor.full_name()).into());
        }
        found.push(Sensitive { descriptor, fields });
    }
    Ok(found)
}

fn class_number(field: &FieldDescriptor, class: &ExtensionDescriptor) -> i32 {
    match field.options().get_extension(class).as_ref() {
        Value::EnumNumber(number) => *number,
        _ => 0,
    }
}

/// `impl Debug` for each, printing sensitive fields as withheld and the others as prost would.
fn redacted(messages: &[Sensitive]) -> Result<String, Box<dyn Error>> {
    let mut code = String::new();
    for Sensitive { descriptor, fields } in messages {
        writeln!(code, "impl ::core::fmt::Debug for {} {{", rust_path(descriptor.full_name(), descriptor.parent_message().is_some())?)?;
        writeln!(code, "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{")?;
        writeln!(code, "        f.debug_struct({:?})", descriptor.name())?;
        for field in descriptor.fields() {
            let name = field.name();
            let value = if fields.contains(&field.number()) {
                "&super::Withheld".to_owned()
            } else if let (Kind::Enum(kind), false, false) = (field.kind(), field.is_list(), field.supports_presence()) {
                format!("&super::EnumOf::<{}>::new(self.r#{name})", rust_path(kind.full_name(), kind.parent_message().is_some())?)
            } else {
                format!("&self.r#{name}")
            };
            writeln!(code, "            .field({name:?}, {value})")?;
        }
        writeln!(code, "            .finish()\n    }}\n}}")?;
    }
    // The tests hold this list against the descriptor set.
    writeln!(code, "#[cfg(test)]\npub(crate) const REDACTED: &[&str] = &[")?;
    for Sensitive { descriptor, .. } in messages {
        writeln!(code, "    {:?},", descriptor.full_name())?;
    }
    writeln!(code, "];")?;
    Ok(code)
}

/// Every message's name, with a function that decodes it and prints its `Debug`.
fn debug_table(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut code = String::from("&[\n");
    for message in our_messages(pool) {
        let path = rust_path(message.full_name(), message.parent_message().is_some())?;
        writeln!(code, "    ({:?}, debug_of::<{path}>),", message.full_name())?;
    }
    code.push(']');
    Ok(code)
}

/// `paymesh.wallet.v1.Balance` is `crate::wallet::v1::Balance`. buf's STANDARD lint keeps names in the shape that prost
/// keeps too; a name that is not would not compile, so it cannot pass unnoticed.
fn rust_path(full_name: &str, nested: bool) -> Result<String, Box<dyn Error>> {
    if nested {
        return Err(format!("{full_name}: declare it at the top of its file, this build script knows no nested types").into());
    }
    let path = full_name.strip_prefix(OURS).ok_or_else(|| format!("{full_name} is not of a package {OURS}*"))?;
    Ok(format!("crate::{}", path.replace('.', "::")))
}
