//! Regions added to a configuration's text and taken out again: what is meant is there, and every other byte is as it was.

#![forbid(unsafe_code)]

mod common;

use std::fs;

use common::{Schema, region_config};
use paymesh_topology::{Compliance, Database, EditError, NewRegion, NewSite, Service, Topology, add_region, retire_region};
use paymesh_types::RegionName;
use proptest::prelude::*;

fn shipped() -> String {
    fs::read_to_string(region_config().join("regions.yaml")).expect("the shipped file can be read")
}

fn name(text: &str) -> RegionName {
    text.parse().expect(text)
}

fn eu_central() -> NewRegion {
    NewRegion {
        name: name("eu_central"),
        zone: "eu".parse().expect("a zone"),
        services: vec![Service::PaymentProcessor, Service::FraudDetection],
        database: Database::ReadReplica,
        compliance: vec![Compliance::Gdpr, Compliance::Psd2],
        grpc: "127.0.0.1:7105".parse().expect("an endpoint"),
        http: "127.0.0.1:7205".parse().expect("an endpoint"),
        site: Some(NewSite {
            aws_region: "eu-central-1".to_owned(),
            network: "10.33.0.0/16".parse().expect("a network"),
            replica_of: None,
        }),
    }
}

/// The lines that only one of two texts has: `+` the second.
fn difference(before: &str, after: &str) -> Vec<String> {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut lines = Vec::new();
    let (mut one, mut two) = (0, 0);
    while one < before.len() || two < after.len() {
        match (before.get(one), after.get(two)) {
            (Some(old), Some(new)) if old == new => (one, two) = (one + 1, two + 1),
            (Some(old), _) if !after[two..].contains(old) => {
                lines.push(format!("-{old}"));
                one += 1;
            }
            (_, Some(new)) => {
                lines.push(format!("+{new}"));
                two += 1;
            }
            (Some(old), None) => {
                lines.push(format!("-{old}"));
                one += 1;
            }
            (None, None) => break,
        }
    }
    lines
}

#[test]
fn a_region_is_added_to_the_shipped_file_in_four_places_and_nothing_else_changes() {
    let before = shipped();
    let (after, topology) = add_region("regions.yaml", &before, &eu_central()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        difference(&before, &after),
        [
            "+    ",
            "+  eu_central:",
            "+    primary: false",
            "+    services: [payment_processor, fraud_detection]",
            "+    database: read_replica",
            "+    compliance: [GDPR, PSD2]",
            "-    regions: [eu_west]",
            "+    regions: [eu_west, eu_central]",
            "+  eu_central: {grpc: \"127.0.0.1:7105\", http: \"127.0.0.1:7205\"}",
            "+    eu_central: {aws_region: eu-central-1, network: 10.33.0.0/16}",
        ]
    );
    Schema::shipped().validate(&after).expect("the schema takes it");
    let added = topology.region(&name("eu_central")).expect("it is there");
    assert_eq!(added.site.as_ref().and_then(|site| site.replica_of.clone()), Some(name("eu_west")));
    assert_eq!(added.zone.as_str(), "eu");
    let (again, _) = retire_region("regions.yaml", &after, &name("eu_central")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again, before, "taken out, the file is what it was, byte for byte");
}

#[test]
fn every_region_that_can_be_missing_can_be_taken_out_of_the_shipped_file() {
    let before = shipped();
    let (after, topology) = retire_region("regions.yaml", &before, &name("asia_pacific")).unwrap_or_else(|error| panic!("{error}"));
    assert!(topology.region(&name("asia_pacific")).is_none());
    let added: Vec<String> = difference(&before, &after).into_iter().filter(|line| line.starts_with('+')).collect();
    assert_eq!(added, ["+    regions: [us_east, us_west]"], "nothing else is written anew");
    assert_eq!(after.matches('#').count(), before.matches('#').count(), "a comment went with it");
    // What leads shards cannot be missing: the configuration would be none.
    let refused = retire_region("regions.yaml", &before, &name("eu_west")).expect_err("the zone would be empty");
    assert!(matches!(&refused, EditError::Unclear { key, .. } if key == "zones.eu.regions"), "{refused}");
    let refused = retire_region("regions.yaml", &before, &name("us_east")).expect_err("there would be no primary");
    assert!(matches!(&refused, EditError::After(_)), "{refused}");
}

/// A file whose region goes into it and out of it again, in a style of its own.
const STYLES: &[(&str, &str)] = &[
    (
        "flow throughout, in one line",
        "{mesh: t, regions: {a: {primary: true, services: [payment_processor], database: primary_master}, b: {primary: false, services: [payment_processor], database: read_replica}}, zones: {eu: {shards: 1, regions: [a, b], countries: [DE]}}, endpoints: {a: {grpc: 'h1:1', http: 'h1:2'}, b: {grpc: 'h2:1', http: 'h2:2'}}}",
    ),
    (
        "lists with dashes, deeper steps, comments, no line's end at the end",
        "mesh: t\nregions: # all\n    # the first\n    a:\n        primary: true\n        services:\n            - payment_processor\n        database: primary_master # its own\n\n    # the second\n    b:\n        primary: false\n        services: [payment_processor]\n        database: read_replica\n\n# zones\nzones:\n    eu:\n        shards: 1\n        regions:\n            - a # one\n            - b\n        countries: [DE]\nendpoints:\n    a: {grpc: 'h1:1', http: 'h1:2'}\n    b:\n        grpc: h2:1\n        http: h2:2",
    ),
    (
        "windows' ends of lines",
        "mesh: t\r\nregions:\r\n  a: {primary: true, services: [payment_processor], database: primary_master}\r\n  b: {primary: false, services: [payment_processor], database: read_replica}\r\nzones:\r\n  eu: {shards: 1, regions: [a, b], countries: [DE]}\r\nendpoints:\r\n  a: {grpc: 'h1:1', http: 'h1:2'}\r\n  b: {grpc: 'h2:1', http: 'h2:2'}\r\n",
    ),
    (
        "lists over lines, with commas at their ends and words that look like brackets",
        "mesh: t\nregions:\n  a: {primary: true, services: [payment_processor], database: primary_master}\n  b: {primary: false, services: [payment_processor], database: read_replica}\nzones:\n  eu:\n    shards: 1\n    regions:\n      [\n        a, # it isn't ] the end\n        b,\n      ]\n    countries: [DE]\nendpoints: { a: { grpc: \"h1:1\", http: \"h1:2\" }, b: { grpc: \"h2:1\", http: \"h2:2\" } } # }\n",
    ),
];

fn third() -> NewRegion {
    NewRegion {
        name: name("c_region"),
        zone: "eu".parse().expect("a zone"),
        services: vec![Service::PaymentProcessor],
        database: Database::ReadReplica,
        compliance: Vec::new(),
        grpc: "h3:1".parse().expect("an endpoint"),
        http: "[::1]:7205".parse().expect("an endpoint"),
        site: None,
    }
}

#[test]
fn a_region_goes_in_and_out_of_every_style_and_leaves_no_trace() {
    for (style, before) in STYLES {
        let (after, topology) = add_region("t", before, &third()).unwrap_or_else(|error| panic!("{style}: {error}"));
        assert!(topology.region(&name("c_region")).is_some_and(|region| region.http.to_string() == "[::1]:7205"), "{style}");
        let (again, without) = retire_region("t", &after, &name("c_region")).unwrap_or_else(|error| panic!("{style}: {error}\n{after}"));
        assert_eq!(Some(&without), Topology::parse("t", before).ok().as_ref(), "{style}");
        assert_eq!(again.trim_end(), before.trim_end(), "{style}");
        if before.contains("\r\n") {
            assert_eq!(after.matches('\n').count(), after.matches("\r\n").count(), "{style}: ends of lines are mixed");
        }
    }
}

#[test]
fn what_stands_in_the_middle_is_taken_out_with_the_comments_that_are_its_own() {
    let (_, styled) = STYLES[1];
    let (after, _) = add_region("t", styled, &third()).unwrap_or_else(|error| panic!("{error}"));
    let (without, topology) = retire_region("t", &after, &name("b")).unwrap_or_else(|error| panic!("{error}"));
    assert!(topology.region(&name("b")).is_none() && topology.region(&name("c_region")).is_some());
    assert!(
        !without.contains("# the second")
            && without.contains("# the first")
            && without.contains("# zones")
            && without.contains("- a # one")
    );
}

#[test]
fn a_comment_that_may_be_of_something_else_is_not_taken_out() {
    // Between two items of a list it is of either.
    let refused = retire_region("t", STYLES[3].1, &name("b")).expect_err("a comment is in the way").to_string();
    assert!(refused.contains("zones.eu.regions: a comment stands between its items: edit the file by hand"), "{refused}");
    // One that stands further to the left is of more than the region below it.
    let outer =
        STYLES[2].1.replace("\r\n", "\n").replace("  b: {primary", "# these were made in spring\n  # this one for tests\n  b: {primary");
    let (after, _) = add_region("t", &outer, &third()).unwrap_or_else(|error| panic!("{error}"));
    let (without, _) = retire_region("t", &after, &name("b")).unwrap_or_else(|error| panic!("{error}"));
    assert!(without.contains("# these were made in spring\n  c_region:") && !without.contains("for tests"), "{without}");
}

#[test]
fn a_comment_below_a_region_and_further_to_the_right_is_that_regions() {
    let yaml = "mesh: t
regions:
  a: {primary: true, services: [payment_processor], database: primary_master}
  b:
    primary: false
    services: [payment_processor]
    database: read_replica
    # of b

      # of b, too
  # of what comes next
zones:
  eu:
    shards: 1
    countries: [DE]
    regions:
      - a
      - b
        # why b
      # of what comes next
endpoints:
  a: {grpc: 'h1:1', http: 'h1:2'}
  b: {grpc: 'h2:1', http: 'h2:2'}
    # where b is
";
    let (after, _) = add_region("t", yaml, &third()).unwrap_or_else(|error| panic!("{error}"));
    for part in [
        "      # of b, too\n  c_region:\n    primary: false\n",
        "    database: read_replica\n  # of what comes next\nzones:",
        "        # why b\n      - c_region\n      # of what comes next\n",
        "    # where b is\n  c_region: {",
    ] {
        assert!(after.contains(part), "{part}\n--\n{after}");
    }
    let (again, _) = retire_region("t", &after, &name("c_region")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again, yaml);
    let (without, _) = retire_region("t", &after, &name("b")).unwrap_or_else(|error| panic!("{error}"));
    assert!(!["of b", "why b", "where b"].iter().any(|comment| without.contains(comment)), "{without}");
    assert_eq!(without.matches("# of what comes next").count(), 2, "{without}");
}

/// Older readers of YAML take these for something else than names.
#[test]
fn a_name_that_is_a_word_of_yaml_is_written_as_a_name() {
    for (style, before) in STYLES {
        let new = NewRegion { name: name("no"), ..third() };
        let (after, topology) = add_region("t", before, &new).unwrap_or_else(|error| panic!("{style}: {error}"));
        assert!(topology.region(&name("no")).is_some(), "{style}");
        assert_eq!(after.matches("\"no\"").count(), 3, "{style}: {after}");
        let (again, _) = retire_region("t", &after, &name("no")).unwrap_or_else(|error| panic!("{style}: {error}\n{after}"));
        assert_eq!(again.trim_end(), before.trim_end(), "{style}");
    }
}

#[test]
fn a_comment_at_the_end_of_a_line_of_a_list_is_not_given_to_another_item() {
    let yaml = |list: &str| STYLES[2].1.replace("\r\n", "\n").replace("[a, b]", list);
    // Beside the last item, which is to be followed by another on the same line; and beside the one that goes.
    for list in ["[\n    a,\n    b # the slow one\n    ]", "[\n    a,\n    b, # the slow one\n    ]"] {
        let refused = add_region("t", &yaml(list), &third()).expect_err("a comment is in the way").to_string();
        assert!(refused.contains("zones.eu.regions: a comment stands beside its last item: edit the file by hand"), "{refused}");
        let refused = retire_region("t", &yaml(list), &name("b")).expect_err("a comment is in the way").to_string();
        assert!(refused.contains("a comment stands between its items"), "{refused}");
    }
    // In a list with dashes, those above an item are the item's, as with entries.
    let dashes = STYLES[1].1.replace("            - b\n", "            # b is slow\n            - b\n");
    let (after, _) = add_region("t", &dashes, &third()).unwrap_or_else(|error| panic!("{error}"));
    let (without, _) = retire_region("t", &after, &name("b")).unwrap_or_else(|error| panic!("{error}"));
    assert!(without.contains("            - a # one\n            - c_region\n") && !without.contains("slow"), "{without}");
}

#[test]
fn a_place_in_the_cloud_is_left_out_where_the_configuration_has_none() {
    let new = NewRegion { site: eu_central().site, ..third() };
    let (after, topology) = add_region("t", STYLES[0].1, &new).unwrap_or_else(|error| panic!("{error}"));
    assert!(topology.cloud().is_none() && !after.contains("cloud"), "{after}");
}

#[test]
fn what_cannot_be_is_refused_with_the_key_that_says_so() {
    let before = shipped();
    type Mistake = (fn(&mut NewRegion), &'static str);
    let table: [Mistake; 11] = [
        (|new| new.name = name("eu"), "regions.eu: there is a zone eu, and eu.api of the domain would lead to both"),
        (|new| new.name = name("eu__west"), "regions.eu__west: a region that is deployed has no two _ in a row"),
        (|new| new.name = name("operator"), "regions.operator: the name is that of another's directory among the mesh's credentials"),
        (|new| new.name = name("us_west"), "there is a region us_west already"),
        (|new| new.zone = "mars".parse().expect("a zone"), "zones.mars.regions: there is no such block"),
        (
            |new| new.site.as_mut().expect("a site").network = "10.32.128.0/20".parse().expect("a network"),
            "cloud.regions.eu_central.network: 10.32.128.0/20 overlaps 10.32.0.0/16, the network of eu_west",
        ),
        (|new| new.site.as_mut().expect("a site").aws_region = "us-east-2".to_owned(), "data of zone eu may not be in us-east-2"),
        (|new| new.site.as_mut().expect("a site").replica_of = Some(name("us_east")), "`us_east` is not of zone eu"),
        (
            |new| new.grpc = "127.0.0.1:7103".parse().expect("an endpoint"),
            "127.0.0.1:7103 overlaps 127.0.0.1:7103, the grpc endpoint of eu_west",
        ),
        (|new| new.compliance.clear(), "eu_west is under the GDPR and eu_central is not"),
        (|new| new.services.push(Service::Vault), "eu_west is the vault of the zone already"),
    ];
    for (mistake, expected) in table {
        let mut new = eu_central();
        mistake(&mut new);
        let refused = add_region("regions.yaml", &before, &new).expect_err(expected).to_string();
        assert!(refused.contains(expected), "expected `{expected}` in\n{refused}");
    }
    let refused = add_region("regions.yaml", "mesh: t\n", &eu_central()).expect_err("no configuration").to_string();
    assert!(refused.contains("regions: is missing"), "{refused}");
    let refused = retire_region("regions.yaml", &before, &name("mars")).expect_err("no region").to_string();
    assert_eq!(refused, "regions: there is no such block: edit the file by hand");
}

/// A configuration of two regions in a style that is drawn.
fn styled() -> impl Strategy<Value = String> {
    (1_usize..5, any::<[bool; 8]>(), 0_usize..3).prop_map(|(step, [a, b, c, d, e, f, g, h], blanks)| {
        let pad = |depth: usize| " ".repeat(step * depth);
        let end = |on: bool, text: &str| if on { format!(" # {text}") } else { String::new() };
        let gap = "\n".repeat(blanks);
        let region = |name: &str, primary: bool, block: bool, comment: bool| {
            let database = if primary { "primary_master" } else { "read_replica" };
            let above = if comment { format!("{}# about {name}: {{, [ and 'so on\n", pad(1)) } else { String::new() };
            if block {
                let (one, two) = (pad(1), pad(2));
                format!(
                    "{above}{one}{name}:{}\n{two}primary: {primary}\n{two}services: [payment_processor]\n{two}database: {database}{}\n{}",
                    end(g, "x"),
                    end(h, "y: z"),
                    if e { format!("{two}# so much: of {name}\n") } else { String::new() }
                )
            } else {
                format!(
                    "{above}{}{name}: {{primary: {primary}, services: [payment_processor], database: {database}}}{}\n",
                    pad(1),
                    end(g, "}")
                )
            }
        };
        let list = if c {
            format!("\n{}- one{}\n{}- two\n", pad(3), end(h, "- three"), pad(3))
        } else if d {
            format!(" [\n{}one, # ]\n{}two{}\n{}]\n", pad(3), pad(3), if e { "," } else { "" }, pad(3))
        } else {
            " [ one , two ]\n".to_owned()
        };
        let endpoints = if f {
            format!("endpoints:\n{}one: {{grpc: \"h1:1\", http: \"h1:2\"}}\n{}two: {{grpc: \"h2:1\", http: \"h2:2\"}}\n", pad(1), pad(1))
        } else {
            "endpoints: {one: {grpc: 'h1:1', http: 'h1:2'}, two: {grpc: 'h2:1', http: 'h2:2'}}\n".to_owned()
        };
        format!(
            "mesh: t\nregions:{}\n{}{gap}{}{gap}zones:\n{}eu:\n{}shards: 1\n{}regions:{list}{}countries: [DE]\n{endpoints}",
            end(a, "all of them"),
            region("one", true, a, b),
            region("two", false, b, c),
            pad(1),
            pad(2),
            pad(2),
            pad(2)
        )
    })
}

proptest! {
    #[test]
    fn in_any_style_a_region_goes_in_and_out_and_no_other_line_changes(before in styled()) {
        prop_assert!(Topology::parse("t", &before).is_ok(), "{before}");
        let (after, _) = add_region("t", &before, &third()).map_err(|error| TestCaseError::fail(format!("{error}\n{before}")))?;
        let kept = before.lines().filter(|line| !line.contains("one , two") && !line.trim_start().starts_with("two,") && line.trim() != "two" && !line.starts_with("endpoints: {"));
        for line in kept {
            prop_assert!(after.lines().any(|other| other == line), "{line:?} is gone from\n{after}");
        }
        let (again, _) = retire_region("t", &after, &name("c_region")).map_err(|error| TestCaseError::fail(format!("{error}\n{after}")))?;
        prop_assert_eq!(again, before);
    }
}
