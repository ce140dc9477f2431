//! Regions added by the command: the mesh that it writes is one, and what it cannot write it leaves as it was.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use paymesh_contract::payments::v1::PaymentStatus;
use tempfile::TempDir;

use crate::support::{Launch, PAYMESH, Run, TestMesh, payment};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../region-config");
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A copy of the shipped configuration.
fn shipped() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(SHIPPED).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let file = folder.path().join("regions.yaml");
    (folder, file)
}

fn region(config: &Path, words: &[&str]) -> Run {
    let mut command = Command::new(PAYMESH);
    command.arg("--config").arg(config).arg("region").args(words).env_remove("PAYMESH_CONFIG");
    Run::from(command.stdin(Stdio::null()).output().unwrap())
}

const ADD: [&str; 6] = ["add", "eu_central", "--zone", "eu", "--aws-region", "eu-central-1"];

#[test]
fn a_region_is_added_and_retired_and_the_file_is_what_it_was() {
    let (folder, file) = shipped();
    let before = fs::read_to_string(&file).unwrap();
    let dry = region(folder.path(), &[&ADD[..], &["--dry-run"]].concat());
    assert!(dry.code == 0 && dry.stdout.contains("+   eu_central:") && dry.stderr.contains("nothing is written"), "{dry:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);

    let added = region(folder.path(), &ADD);
    assert_eq!(added.code, 0, "{added:?}");
    for said in [
        "+     eu_central: {aws_region: eu-central-1, network: 10.33.0.0/16}",
        "--network is 10.33.0.0/16: the next that no other region has",
        "it leads no shard",
        "it copies 5 journals whole (eu's and the directory's)\n",
        "personal data of the users of zone eu",
        "it is under GDPR and PSD2",
        "is a replica of that of eu_west",
        "its node (c5.xlarge) 124.10 USD, an edge (c5.large) 62.05 USD, its database (r5.xlarge) 183.96 USD",
        "terraform -chdir=deploy/terraform/region apply -var region=eu_central",
        "paymesh render kubernetes",
    ] {
        assert!(added.stdout.contains(said), "{said:?} is not said:\n{}", added.stdout);
    }
    let listed = region(folder.path(), &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed[4]["region"], "eu_central");
    assert_eq!(listed[4]["replica_of"], "eu_west");

    let again = region(&file, &ADD);
    assert!(again.code == 2 && again.stderr.contains("there is a region eu_central already"), "{again:?}");
    // By the file's own name.
    let retired = region(&file, &["retire", "eu_central"]);
    assert!(retired.code == 0 && retired.stdout.contains("terraform -chdir=deploy/terraform/region destroy"), "{retired:?}");
    // Whose state it is that is destroyed is chosen before.
    let (chosen, destroyed) = (retired.stdout.find("-backend-config=key=region/eu_central.tfstate"), retired.stdout.find("region destroy"));
    assert!(chosen.is_some() && chosen < destroyed, "{retired:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn what_cannot_be_is_refused_by_its_name_and_nothing_is_written() {
    let (folder, file) = shipped();
    let before = fs::read_to_string(&file).unwrap();
    let add = |words: &[&'static str]| [&["add"], words].concat();
    let eu = |words: &[&'static str]| [&ADD[..], words].concat();
    let table: Vec<(Vec<&str>, &str)> = vec![
        (add(&["eu_x", "--zone", "mars", "--aws-region", "eu-central-1"]), "--zone: there is no zone `mars`; the zones are global, eu"),
        (add(&["eu_x", "--zone", "eu"]), "--aws-region is missing"),
        (
            add(&["eu_x", "--zone", "eu", "--aws-region", "us-east-2"]),
            "cloud.regions.eu_x.aws_region: data of zone eu may not be in us-east-2",
        ),
        (
            eu(&["--network", "10.32.128.0/20"]),
            "cloud.regions.eu_central.network: 10.32.128.0/20 overlaps 10.32.0.0/16, the network of eu_west",
        ),
        (eu(&["--replica-of", "us_east"]), "cloud.regions.eu_central.replica_of: `us_east` is not of zone eu"),
        (eu(&["--services", "payment_processor,vault"]), "eu_west is the vault of the zone already"),
        (eu(&["--services", "payments"]), "--services: `payments` is not known"),
        (eu(&["--database", "regional_master"]), "eu_west and eu_central are masters"),
        (eu(&["--database", "big"]), "--database: `big` is not known"),
        (eu(&["--grpc", "127.0.0.1:7101"]), "overlaps 127.0.0.1:7101, the grpc endpoint of us_east"),
        (add(&["Eu", "--zone", "eu", "--aws-region", "eu-central-1"]), "invalid value 'Eu'"),
        (add(&["eu_x", "--zone", "eu", "--aws-region", "eu-west-1"]), "--aws-region: eu_west is in eu-west-1 already"),
        (
            add(&["a_region_of_a_very_long_n", "--zone", "eu", "--aws-region", "eu-central-1"]),
            "the name of a region that is deployed has 23 bytes at most",
        ),
        (add(&["eu_", "--zone", "eu", "--aws-region", "eu-central-1"]), "ends in no `_`"),
        // The port of a simulated acquirer.
        (eu(&["--grpc", "127.0.0.1:7301"]), "nothing is written; gateways.yaml would be refused"),
        (vec!["retire", "us_east"], "us_east leads directory/0, global/0"),
        (vec!["retire", "eu_west"], "eu_west leads eu/0"),
        (vec!["retire", "mars"], "there is no region `mars`"),
    ];
    for (words, wanted) in table {
        let run = region(folder.path(), &words);
        assert!(run.code == 2 && run.stderr.contains(wanted), "{words:?}: expected `{wanted}` in\n{run:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), before, "{words:?}");
    }
    // A region that another file names.
    let scaling = folder.path().join("scaling.yaml");
    let shipped = fs::read_to_string(&scaling).unwrap();
    let named = shipped.replace("\nregions: {}", "\nregions: {asia_pacific: {time_zone: Asia/Tokyo}}");
    assert_ne!(named, shipped);
    fs::write(&scaling, named).unwrap();
    let run = region(folder.path(), &["retire", "asia_pacific"]);
    assert!(
        run.code == 2 && run.stderr.contains("nothing is written; scaling.yaml would be refused") && run.stderr.contains("asia_pacific"),
        "{run:?}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    fs::write(&scaling, shipped).unwrap();
    // What a zone has by one region alone, and would have no more without a word.
    let alone = before.replace(
        "services: [payment_processor, fraud_detection, vault]\n    database: primary_master",
        "services: [payment_processor, vault]\n    database: primary_master",
    );
    assert_ne!(alone, before);
    fs::write(&file, &alone).unwrap();
    let run = region(folder.path(), &["retire", "us_west"]);
    assert!(run.code == 2 && run.stderr.contains("us_west alone scores payments of zone global for fraud"), "{run:?}");
    fs::write(&file, &before).unwrap();
    assert_eq!(region(folder.path(), &ADD).code, 0);
    let with = fs::read_to_string(&file).unwrap();
    let alone = with.replacen("compliance: [GDPR, PSD2]", "compliance: [GDPR]", 1);
    assert_ne!(alone, with);
    fs::write(&file, &alone).unwrap();
    let run = region(folder.path(), &["retire", "eu_central"]);
    assert!(run.code == 2 && run.stderr.contains("zone eu is under PSD2 by eu_central alone"), "{run:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), alone);
    // With the last copy goes what a leader's disk could have been made anew from, and that is said.
    fs::write(&file, &with).unwrap();
    let run = region(folder.path(), &["retire", "eu_central"]);
    assert!(run.code == 0 && run.stdout.contains("eu_west alone has the journals of zone eu then"), "{run:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    // A file that is wrong already is not made worse.
    fs::write(&file, before.replace("shards: 4", "shards: 0")).unwrap();
    let run = region(folder.path(), &ADD);
    assert!(run.code == 2 && run.stderr.contains("zones.global.shards: must be 1 to 4096, not 0"), "{run:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), fs::read_dir(SHIPPED).unwrap().count(), "nothing is left aside");
}

const TWO: &str = "
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR]}
zones:
  global: {shards: 2, regions: [us_east], countries: [US]}
  eu: {shards: 2, regions: [eu_west], countries: [DE]}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_added_takes_calls_and_has_its_copies() {
    let before = TestMesh::new(TWO);
    let added = before.run(&["region", "add", "eu_central", "--zone", "eu"]);
    assert_eq!(added.code, 0, "{added:?}");
    let written = fs::read_to_string(before.config().join("regions.yaml")).unwrap();
    // As it was written, but for the endpoints: those of a test are its own.
    let three = written[..written.find("endpoints:").unwrap()].to_owned();
    let mesh = TestMesh::started(&three);
    assert_eq!(mesh.regions(), ["eu_central", "eu_west", "us_east"]);
    mesh.enrol("eu_central", 10, "DE", 1_000).await;
    mesh.enrol("eu_central", 11, "US", 0).await;
    let paid = mesh.payments("eu_central").create_payment(payment(10, 11, 300)).await.unwrap().into_inner().payment.unwrap();
    assert!(matches!(paid.status(), PaymentStatus::Completed | PaymentStatus::InTransit), "{paid:?}");
    let until = Instant::now() + WAIT_MAX;
    while mesh.balance("us_east", 11).await != 300 {
        assert!(Instant::now() < until, "the money does not arrive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = mesh.run(&["status", "--json"]);
    assert!(status.stdout.contains("eu_central"), "{status:?}");
    mesh.assert_books();
}

/// Nodes read the file when they start. Whoever forgets one that leads hears of it from `status`, which else would find everybody well.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_whose_leaders_have_not_read_the_new_file_yet_is_said_to_be_cut_off() {
    let three = TWO.replace("regions: [eu_west]", "regions: [eu_west, eu_central]").replace(
        "zones:\n",
        "  eu_central: {primary: false, services: [payment_processor], database: read_replica, compliance: [GDPR]}\nzones:\n",
    );
    let mut mesh = TestMesh::new(&three);
    let old = mesh.config().with_file_name("old-config");
    fs::create_dir(&old).unwrap();
    for file in ["regions.yaml", "access.yaml"] {
        fs::copy(mesh.config().join(file), old.join(file)).unwrap();
    }
    let retired = region(&old, &["retire", "eu_central"]);
    assert_eq!(retired.code, 0, "{retired:?}");
    for name in ["us_east", "eu_west"] {
        mesh.launch(name, Launch { config: Some(old.clone()), ..Launch::default() });
    }
    mesh.start_all();
    let until = Instant::now() + WAIT_MAX;
    let status = loop {
        let status = mesh.run(&["status"]);
        if status.code == 1 {
            break status;
        }
        assert!(status.code == 0 && Instant::now() < until, "{status:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let why = "eu_central's copy of eu/0 does not reach its leader, and goes on trying: eu_central is not another region of the mesh that \
               keeps copies, by the regions.yaml that eu_west has read";
    assert!(status.stdout.contains(why), "{status:?}");
    for name in ["us_east", "eu_west"] {
        assert!(mesh.stop(name).success());
        mesh.launch(name, Launch::default());
        mesh.start(name);
    }
    let until = Instant::now() + WAIT_MAX;
    while mesh.run(&["status"]).code != 0 {
        assert!(Instant::now() < until, "{:?}", mesh.run(&["status"]));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
