//! `paymesh demo`, shortened, as a newcomer runs it.

use crate::support::{TestMesh, four_regions_with_vaults};

#[test]
fn the_demo_pays_across_oceans_with_a_region_cut_off_and_adds_up() {
    let countries =
        four_regions_with_vaults().replace("[US, JP]", "[US, JP, AU, BR, CA, SG]").replace("[DE, FR]", "[DE, ES, FR, IE, IT, NL, PL]");
    let mesh = TestMesh::new(&countries);
    // Payments by card are scored by the rules that newcomers have.
    std::fs::write(mesh.config().join("fraud.yaml"), include_str!("../../../../region-config/fraud.yaml")).unwrap();
    let path = mesh.file("report.json", "");
    let run = mesh.run(&["demo", "--payments", "400", "--json", path.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run:?}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(report["good"], true, "{report}");
    // The first that leads nothing.
    assert_eq!(report["cut"]["region"], "us_west", "{report}");
    assert!(report["cut"]["behind_entries"].as_u64().unwrap() > 0, "what was committed without it did not reach it: {report}");
    assert_eq!(report["own_writes"]["payments"], 200, "{report}");
    assert!(report["own_writes"]["read_from_copy"].as_u64().unwrap() >= 100, "most are there in time: {report}");
    assert!(report["own_writes"]["p50_us"].as_u64().unwrap() > 50, "no call over a socket is that fast: {report}");
    let by_card = &report["by_card"];
    let counted = ["payments", "completed", "declined"].map(|key| by_card[key].as_u64());
    assert_eq!(counted, [Some(12), Some(10), Some(2)], "six in each zone, one of them by a card without enough on it: {report}");
    // Five of each zone are charged; three of them are holds of which a part is captured, and refunded in part.
    assert_eq!((by_card["refunds"].as_u64(), by_card["taken_minor_units"].as_i64()), (Some(6), Some(4 * 1_000 + 6 * 450)), "{report}");
    let copies = report["verify"]["copies"].as_array().unwrap();
    assert!(copies.len() >= 8 && copies.iter().all(|copy| copy["good"] == true), "{report}");
    for words in ["us_west was frozen for", "us_west had caught up", "demo: everything was done, and adds up"] {
        assert!(run.stdout.contains(words), "`{words}` is not in\n{}", run.stdout);
    }
}

/// Whoever names a configuration has not seen it tried where another was.
#[test]
fn the_demo_of_a_configuration_that_is_not_there_is_none() {
    let mesh = TestMesh::new(&four_regions_with_vaults());
    let run = mesh.run(&["--config", "nowhere", "demo", "--payments", "1"]);
    assert!(run.code == 2 && run.stderr.contains("nowhere: there is no such configuration"), "{run:?}");
}
