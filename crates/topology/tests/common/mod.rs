//! The JSON Schema of region-config, as an editor or a pipeline would apply it.

use std::path::PathBuf;

/// The folder of the shipped configuration.
pub(crate) fn region_config() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../region-config")
}

/// A JSON Schema, compiled.
pub(crate) struct Schema {
    schemas: boon::Schemas,
    index: boon::SchemaIndex,
}

impl Schema {
    /// The shipped schema of regions.yaml.
    #[allow(dead_code, reason = "each test program has the schemas that it is about")]
    pub(crate) fn shipped() -> Self {
        Self::of("regions.schema.json")
    }

    /// A schema that ships.
    pub(crate) fn of(file: &str) -> Self {
        let text = std::fs::read_to_string(region_config().join(file)).expect("the schema can be read");
        let json = serde_json::from_str(&text).expect("the schema is JSON");
        let location = "https://paymesh.example/regions.schema.json";
        let mut compiler = boon::Compiler::new();
        compiler.add_resource(location, json).expect("the schema is taken");
        let mut schemas = boon::Schemas::new();
        let index = compiler.compile(location, &mut schemas).expect("the schema is a JSON Schema");
        Self { schemas, index }
    }

    /// The properties of one of its blocks.
    #[allow(dead_code, reason = "the tests of mistakes have no use for it")]
    pub(crate) fn properties(block: &str) -> serde_json::Map<String, serde_json::Value> {
        let text = std::fs::read_to_string(region_config().join("regions.schema.json")).expect("the schema can be read");
        let mut schema: serde_json::Value = serde_json::from_str(&text).expect("the schema is JSON");
        match schema["properties"][block]["properties"].take() {
            serde_json::Value::Object(properties) => properties,
            other => panic!("{block} has {other}"),
        }
    }

    /// What the schema says against a YAML text, read by the rules of YAML 1.2.
    pub(crate) fn validate(&self, yaml: &str) -> Result<(), String> {
        let options = serde_saphyr::options! { strict_booleans: true };
        let value = serde_saphyr::from_str_with_options(yaml, options).map_err(|error| error.to_string())?;
        self.schemas.validate(&value, self.index).map_err(|error| format!("{error:#}"))
    }
}
