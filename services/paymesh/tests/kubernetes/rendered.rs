//! `paymesh render kubernetes`: the same every time, all or nothing, and never over what is somebody's own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use paymesh_topology::{Database, Service, Topology};
use tempfile::TempDir;

use crate::{
    built::{root, shipped},
    support::{PAYMESH, Run},
};

/// What a test does to regions.yaml.
type Change = fn(String) -> String;

/// The shipped configuration, changed, and a folder for what is made of it.
struct Work(TempDir);

impl Work {
    fn new(change: impl Fn(String) -> String) -> Self {
        let work = Self(tempfile::tempdir().unwrap());
        fs::create_dir(work.config()).unwrap();
        for name in ["access.yaml", "fraud.yaml", "gateways.yaml", "scaling.yaml"] {
            fs::copy(root().join("region-config").join(name), work.config().join(name)).unwrap();
        }
        fs::write(work.config().join("regions.yaml"), change(fs::read_to_string(root().join("region-config/regions.yaml")).unwrap()))
            .unwrap();
        work
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("region-config")
    }

    fn out(&self) -> PathBuf {
        self.0.path().join("overlays")
    }

    fn render(&self, more: &[&str]) -> Run {
        let mut command = Command::new(PAYMESH);
        command.arg("--config").arg(self.config()).args(["render", "kubernetes", "--out"]).arg(self.out()).args(more);
        Run::from(command.stdin(Stdio::null()).output().unwrap())
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.out().join(name)).unwrap()
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read_to_string(path).unwrap());
        }
    }
    found
}

#[test]
fn the_shipped_overlays_are_what_the_shipped_configuration_makes() {
    let mut command = Command::new(PAYMESH);
    command
        .arg("--config")
        .arg(root().join("region-config"))
        .args(["render", "kubernetes", "--check", "--out"])
        .arg(root().join("deploy/kubernetes/overlays"));
    let run = Run::from(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!(run.code, 0, "run `paymesh render kubernetes`:\n{}", run.stderr);
}

#[test]
fn what_is_made_twice_is_the_same_and_a_check_names_what_is_not() {
    let work = Work::new(|text| text);
    let checked = work.render(&["--check"]);
    assert!(checked.code == 1 && checked.stderr.contains("us_east/kustomization.yaml is missing") && !work.out().exists(), "{checked:?}");
    assert_eq!(work.render(&[]).code, 0);
    let first = files(&work.out());
    assert_eq!(work.render(&[]).code, 0);
    assert_eq!(files(&work.out()), first);
    assert_eq!(work.render(&["--check"]).code, 0);

    fs::write(work.out().join("eu_west/network.yaml"), "changed").unwrap();
    fs::write(work.out().join("eu_west/more.yaml"), "more").unwrap();
    fs::remove_file(work.out().join("us_west/patches/node.yaml")).unwrap();
    let checked = work.render(&["--check"]);
    assert_eq!(checked.code, 1);
    for said in
        ["eu_west/network.yaml differs", "eu_west/more.yaml is not made from the configuration", "us_west/patches/node.yaml is missing"]
    {
        assert!(checked.stderr.contains(said), "{said}: {checked:?}");
    }
    assert_eq!(checked.stderr.lines().count(), 4, "and nothing else but what to do: {checked:?}");
    assert_eq!(work.render(&[]).code, 0);
    assert_eq!(files(&work.out()), first);

    // The same bytes, and elsewhere.
    let (file, elsewhere) = (work.out().join("eu_west/network.yaml"), work.config().join("network.yaml"));
    fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    let checked = work.render(&["--check"]);
    assert!(checked.code == 1 && checked.stderr.contains("eu_west/network.yaml is a link"), "{checked:?}");
    assert_eq!(work.render(&[]).code, 0);
    assert!(!fs::symlink_metadata(&file).unwrap().is_symlink() && elsewhere.exists());
}

/// A region that is gone takes its folder along; what somebody else made stays, and stops everything.
#[test]
fn folders_of_regions_that_are_gone_go_and_folders_of_others_stay() {
    let work = Work::new(|text| text);
    assert_eq!(work.render(&[]).code, 0);
    let text = fs::read_to_string(work.config().join("regions.yaml")).unwrap();
    let without: String =
        text.lines().filter(|line| !line.trim_start().starts_with("asia_pacific: {")).map(|line| format!("{line}\n")).collect();
    let without =
        without.replace("  asia_pacific:\n    primary: false\n    services: [payment_processor]\n    database: read_replica\n", "");
    let without = without.replace("[us_east, us_west, asia_pacific]", "[us_east, us_west]");
    fs::write(work.config().join("regions.yaml"), without).unwrap();
    fs::create_dir(work.out().join("mine")).unwrap();
    fs::write(work.out().join("mine/kustomization.yaml"), "resources: []\n").unwrap();
    let checked = work.render(&["--check"]);
    assert!(checked.code == 1 && checked.stderr.contains("asia_pacific is of a region that is not in the configuration"), "{checked:?}");
    // Somebody works on a copy.
    let own = work.out().join("asia_pacific/config/mine.yaml");
    fs::write(&own, "kind: ConfigMap\n").unwrap();
    let run = work.render(&[]);
    assert!(
        run.code == 2
            && run.stderr.contains("asia_pacific is of no region in the configuration, and would be removed; but config/mine.yaml in it"),
        "{run:?}"
    );
    fs::remove_file(&own).unwrap();
    let run = work.render(&[]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("asia_pacific is removed: its region is not in the configuration"), "{run:?}");
    assert!(
        run.stdout.contains("cards of zone eu are in the vault of region eu_west_vault: who seals cards believes what that node signs"),
        "{run:?}"
    );
    assert!(!work.out().join("asia_pacific").exists() && work.out().join("mine/kustomization.yaml").exists());

    fs::remove_dir_all(work.out().join("eu_west")).unwrap();
    fs::rename(work.out().join("mine"), work.out().join("eu_west")).unwrap();
    let before = files(&work.out());
    let run = work.render(&[]);
    assert!(run.code == 2 && run.stderr.contains("eu_west was not made by `paymesh render`"), "{run:?}");
    // And nothing beside another who writes there.
    let held = fs::File::open(work.out()).unwrap();
    held.lock().unwrap();
    let run = work.render(&[]);
    assert!(run.code == 2 && run.stderr.contains("another command writes there; nothing is written"), "{run:?}");
    assert_eq!(files(&work.out()), before, "nothing is written");
}

#[test]
fn a_configuration_that_cannot_be_deployed_is_refused_by_its_key_and_nothing_is_written() {
    let cut: Change = |text| text[..text.find("\ncloud:").unwrap()].to_owned();
    let table: [(&str, Change); 6] = [
        ("regions.yaml: cloud: is missing", cut),
        ("cloud.regions", |text| text.replace("    us_west: {aws_region: us-west-2, network: 10.17.0.0/16}\n", "")),
        ("10.16.0.0/16", |text| text.replace("10.17.0.0/16", "10.16.0.0/16")),
        ("regions.us_east: its vault is deployed apart, as us_east_vault, and there is a region of that name", |text| {
            text.replace("us_west", "us_east_vault")
        }),
        ("regions.a_region_whose_name_is_long: the names of its target groups", |text| {
            text.replace("asia_pacific", "a_region_whose_name_is_long")
        }),
        ("regions.an_east_of_more_than_26_bytes: its vault is deployed apart", |text| {
            text.replace("us_east", "an_east_of_more_than_26_bytes")
        }),
    ];
    for (said, change) in table {
        let work = Work::new(change);
        let run = work.render(&[]);
        assert!(run.code == 2 && run.stderr.contains(said), "{said}: {run:?}");
        assert!(!work.out().exists(), "{said}: something is written");
    }
    // The other files are held against the regions as they are deployed.
    for name in ["access.yaml", "gateways.yaml", "fraud.yaml", "scaling.yaml"] {
        let work = Work::new(|text| text);
        fs::write(work.config().join(name), "nonsense: 1\n").unwrap();
        let run = work.render(&[]);
        assert!(run.code == 2 && run.stderr.contains(name) && run.stderr.contains("nonsense"), "{run:?}");
        assert!(!work.out().exists(), "{name}");
    }
    let work = Work::new(|text| text);
    fs::remove_file(work.config().join("scaling.yaml")).unwrap();
    let run = work.render(&[]);
    assert!(run.code == 2 && run.stderr.contains("scaling.yaml: cannot be read: No such file"), "{run:?}");
    assert!(!work.out().exists());
}

/// What processes read there is what the file says, but for where they are and that vaults are apart.
#[test]
fn the_deployed_regions_are_the_same_mesh_with_its_vaults_apart() {
    let (own, region_config) = (Work::new(|text| text), root().join("region-config"));
    assert_eq!(own.render(&[]).code, 0);
    let source = Topology::load(&region_config).unwrap();
    for region in shipped() {
        let deployed = Topology::parse("deployed", &own.file(&format!("{region}/config/regions.yaml"))).unwrap();
        assert!(deployed.cloud().is_none());
        assert_eq!(
            (deployed.mesh(), deployed.limits(), deployed.primary().name.as_str()),
            (source.mesh(), source.limits(), source.primary().name.as_str())
        );
        assert_eq!((deployed.outcome_retention(), deployed.journal_retention()), (source.outcome_retention(), source.journal_retention()));
        assert_eq!(deployed.shards(), source.shards());
        for shard in source.shards() {
            assert_eq!(deployed.leader(&shard), source.leader(&shard));
        }
        for (one, other) in source.zones().zip(deployed.zones()) {
            assert_eq!(
                (&one.name, &one.countries, one.sealed_cards, one.entry),
                (&other.name, &other.countries, other.sealed_cards, other.entry)
            );
            let vault = source.vault(&one.name).map(|region| format!("{region}_vault"));
            assert_eq!(deployed.vault(&one.name).map(ToString::to_string), vault);
        }
        let (mut after, mut order) = (Vec::new(), Vec::new());
        for region in deployed.regions() {
            let label = region.name.as_str().replace('_', "-");
            assert_eq!(region.grpc.to_string(), format!("{label}.nodes.pay.example.com:7100"));
            assert_eq!(region.http.to_string(), format!("{label}.nodes.pay.example.com:7200"));
            if region.is_vault_alone() {
                after.push((order.last().cloned(), region.name.to_string()));
                assert_eq!((region.database, region.services.as_slice()), (Database::None, [Service::Vault].as_slice()));
            } else {
                assert!(!region.runs(Service::Vault));
                order.push(region.name.to_string());
            }
        }
        assert_eq!(order, source.regions().map(|region| region.name.to_string()).collect::<Vec<_>>(), "in the order of the file");
        assert!(after.iter().all(|(before, vault)| before.as_ref().is_some_and(|before| *vault == format!("{before}_vault"))), "{after:?}");
        assert!(deployed.regions().all(|region| {
            let of = source.regions().find(|of| region.name.as_str().trim_end_matches("_vault") == of.name.as_str()).unwrap();
            of.compliance == region.compliance && of.zone == region.zone
        }));
    }
}

/// One that is a vault alone already keeps its name, and has no node.
#[test]
fn a_region_that_is_a_vault_alone_stays_what_it_is() {
    let work = Work::new(|text| {
        text.replace("services: [payment_processor, fraud_detection, vault]\n    database: primary_master", "services: [payment_processor, fraud_detection]\n    database: primary_master")
            .replace("  us_west:\n    primary: false", "  safe:\n    primary: false\n    services: [vault]\n    database: none\n    vault_keys: {pkcs11: {module: /usr/lib/token.so, token: \"080\"}}\n\n  us_west:\n    primary: false")
            .replace("[us_east, us_west, asia_pacific]", "[us_east, safe, us_west, asia_pacific]")
            .replace("  us_east: {grpc", "  safe: {grpc: \"127.0.0.1:7109\", http: \"127.0.0.1:7209\"}\n  us_east: {grpc")
            .replace("    us_east: {aws_region", "    safe: {aws_region: us-east-1, network: 10.19.0.0/16}\n    us_east: {aws_region")
    });
    let run = work.render(&[]);
    assert_eq!(run.code, 0, "{run:?}");
    let deployed = Topology::parse("deployed", &work.file("safe/config/regions.yaml")).unwrap();
    let safe = deployed.regions().find(|region| region.name.as_str() == "safe").unwrap();
    assert_eq!(safe.grpc.to_string(), "safe-vault.nodes.pay.example.com:7100");
    assert_eq!(safe.vault_token.as_ref().unwrap().label, "080");
    assert!(deployed.regions().all(|region| region.name.as_str() != "safe_vault" && region.name.as_str() != "us_east_vault"));
    let kustomization = work.file("safe/kustomization.yaml");
    assert!(
        kustomization.contains("base/vault") && !kustomization.contains("base/node") && !kustomization.contains("base/edge"),
        "{kustomization}"
    );
    assert!(!work.file("us_east/kustomization.yaml").contains("base/vault"));
}

/// Only then do edges need to go out.
#[test]
fn edges_reach_issuers_that_are_asked_for_their_keys() {
    let work = Work::new(|text| text);
    assert_eq!(work.render(&[]).code, 0);
    assert!(!work.file("us_east/network.yaml").contains("443"));
    let access = work.config().join("access.yaml");
    let text = fs::read_to_string(&access)
        .unwrap()
        .replace("{file: issuer/jwks.json}", "{url: \"https://id.example.com/keys\", authorities: web-ca.pem}");
    fs::write(&access, &text).unwrap();
    let run = work.render(&[]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(work.file("us_east/network.yaml").contains("edge-issuers"));
    // At another port nobody would reach it.
    fs::write(&access, text.replace("id.example.com/keys", "id.example.com:8443/keys")).unwrap();
    let run = work.render(&[]);
    assert!(run.code == 2 && run.stderr.contains("access.yaml: issuers.development: https://id.example.com:8443/keys"), "{run:?}");
    fs::write(&access, text.replace("id.example.com/keys", "id.example.com:443/keys")).unwrap();
    assert_eq!(work.render(&[]).code, 0);
}
