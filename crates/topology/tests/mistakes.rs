//! One row for each mistake: what is changed in a sound file, and every line that the operator then reads.

#![forbid(unsafe_code)]

mod common;

use common::Schema;
use paymesh_topology::Topology;

/// A sound file. The numbers at the end of its lines are theirs.
const SOUND: &str = r#"mesh: test # 1
regions: # 2
  us_east: {primary: true, services: [payment_processor], database: primary_master} # 3
  us_west: {primary: false, services: [payment_processor], database: read_replica} # 4
  eu_west: {primary: false, services: [payment_processor, vault], database: regional_master, compliance: [GDPR]} # 5
zones: # 6
  global: {shards: 4, regions: [us_east, us_west], countries: [US, CA]} # 7
  eu: # 8
    shards: 2 # 9
    regions: [eu_west] # 10
    countries: [DE, FR] # 11
endpoints: # 12
  us_east: {grpc: "127.0.0.1:7101", http: "127.0.0.1:7201"} # 13
  us_west: {grpc: "127.0.0.1:7102", http: "127.0.0.1:7202"} # 14
  eu_west: # 15
    grpc: "127.0.0.1:7103" # 16
    http: "127.0.0.1:7203" # 17
outcomes: {retention_hours: 168} # 18
"#;

/// Replaces the only place of `from` in the text.
fn edit(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "`{from}` must stand once");
    text.replace(from, to)
}

fn problems(yaml: &str) -> Vec<String> {
    match Topology::parse("regions.yaml", yaml) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

/// A mistake that the schema sees too.
const BOTH: bool = true;
/// A mistake that takes more than one key to see, or that JSON cannot express.
const LOAD_ONLY: bool = false;

/// (what is written, what is written instead, the lines of the error, whether the schema refuses it too)
type Row = (&'static str, &'static str, &'static [&'static str], bool);

const KEYS: &[Row] = &[
    ("outcomes:", "outcome:", &["regions.yaml:18: outcome: unknown key; did you mean `outcomes`?"], BOTH),
    (
        "{primary: true,",
        "{primary: true, zone: eu,",
        &["regions.yaml:3: regions.us_east.zone: unknown key; known here: primary, services, database, compliance, vault_keys"],
        BOTH,
    ),
    (
        "    shards: 2",
        "    shard: 2",
        &["regions.yaml:8: zones.eu.shards: is missing", "regions.yaml:9: zones.eu.shard: unknown key; did you mean `shards`?"],
        BOTH,
    ),
    ("    grpc:", "    tls: true\n    grpc:", &["regions.yaml:16: endpoints.eu_west.tls: unknown key; known here: grpc, http"], BOTH),
    (
        "retention_hours",
        "retention_days",
        &[
            "regions.yaml:18: outcomes.retention_hours: is missing",
            "regions.yaml:18: outcomes.retention_days: unknown key; did you mean `retention_hours`?",
        ],
        BOTH,
    ),
    (
        "    shards: 2 # 9\n",
        "    shards: 2\n    shards: 3\n",
        &["regions.yaml:10: zones.eu.shards: the key stands twice; the first is on line 9"],
        LOAD_ONLY,
    ),
    (
        "  eu_west: {",
        "  us_east: {",
        &[
            "regions.yaml:5: regions.us_east: the key stands twice; the first is on line 3",
            "regions.yaml:10: zones.eu.regions[0]: no region is called `eu_west`; did you mean `us_west`?",
            "regions.yaml:15: endpoints.eu_west: no region is called `eu_west`; did you mean `us_west`?",
        ],
        LOAD_ONLY,
    ),
    (
        "mesh: test",
        "<<: {mesh: test}",
        &[
            "regions.yaml: mesh: is missing",
            "regions.yaml:1: <<: unknown key; known here: mesh, regions, zones, endpoints, outcomes, journal, audit, limits, cloud",
        ],
        LOAD_ONLY,
    ),
    ("    shards: 2 # 9\n", "", &["regions.yaml:8: zones.eu.shards: is missing"], BOTH),
    (", database: primary_master", "", &["regions.yaml:3: regions.us_east.database: is missing"], BOTH),
    ("    http: \"127.0.0.1:7203\" # 17\n", "", &["regions.yaml:15: endpoints.eu_west.http: is missing"], BOTH),
    ("mesh: test # 1\n", "", &["regions.yaml: mesh: is missing"], BOTH),
];

const VALUES: &[Row] = &[
    ("mesh: test", "mesh: ''", &["regions.yaml:1: mesh: must be 1 to 63 of a-z, 0-9, - and _, beginning with a letter, not ``"], BOTH),
    ("mesh: test", "mesh:", &["regions.yaml:1: mesh: must be text, not nothing"], BOTH),
    (
        "mesh: test",
        "mesh: Pay Mesh",
        &["regions.yaml:1: mesh: must be 1 to 63 of a-z, 0-9, - and _, beginning with a letter, not `Pay Mesh`"],
        BOTH,
    ),
    ("mesh: test", "mesh: 7", &["regions.yaml:1: mesh: must be text, not 7"], BOTH),
    ("primary: true", "primary: yes", &["regions.yaml:3: regions.us_east.primary: must be true or false, not `yes`"], BOTH),
    (
        "    shards: 2 # 9\n",
        "    shards: 2\n    sealed_cards: always\n",
        &["regions.yaml:10: zones.eu.sealed_cards: must be true or false, not `always`"],
        BOTH,
    ),
    (
        "[payment_processor, vault]",
        "[payment_processor, vualt]",
        &["regions.yaml:5: regions.eu_west.services[1]: `vualt` is not a known service; did you mean `vault`?"],
        BOTH,
    ),
    (
        "[payment_processor, vault]",
        "[payment_processor, wallet]",
        &[
            "regions.yaml:5: regions.eu_west.services[1]: `wallet` is not a known service; known are: payment_processor, fraud_detection, vault",
        ],
        BOTH,
    ),
    (
        "[payment_processor, vault]",
        "[payment_processor, payment_processor]",
        &["regions.yaml:5: regions.eu_west.services[1]: `payment_processor` is listed twice"],
        BOTH,
    ),
    (
        "[payment_processor, vault]",
        "payment_processor",
        &["regions.yaml:5: regions.eu_west.services: must be a list, not `payment_processor`"],
        BOTH,
    ),
    ("[payment_processor, vault]", "[]", &["regions.yaml:5: regions.eu_west.services: must list at least one service"], BOTH),
    (
        "database: read_replica",
        "database: replica",
        &[
            "regions.yaml:4: regions.us_west.database: `replica` is not a known kind of database; known are: primary_master, regional_master, read_replica, none",
        ],
        BOTH,
    ),
    (
        "[GDPR]",
        "[GDPR, PSD3]",
        &["regions.yaml:5: regions.eu_west.compliance[1]: `PSD3` is not a known regime; did you mean `PSD2`?"],
        BOTH,
    ),
    ("    shards: 2", "    shards: 0", &["regions.yaml:9: zones.eu.shards: must be 1 to 4096, not 0"], BOTH),
    ("    shards: 2", "    shards: 4097", &["regions.yaml:9: zones.eu.shards: must be 1 to 4096, not 4097"], BOTH),
    ("    shards: 2", "    shards: -1", &["regions.yaml:9: zones.eu.shards: must be 1 to 4096, not -1"], BOTH),
    ("    shards: 2", "    shards: 2.5", &["regions.yaml:9: zones.eu.shards: must be 1 to 4096, not 2.5"], BOTH),
    ("    shards: 2", "    shards: two", &["regions.yaml:9: zones.eu.shards: must be 1 to 4096, not `two`"], BOTH),
    (
        "    shards: 2",
        "    shards: 99999999999999999999999999999999999999999",
        &["regions.yaml:9: zones.eu.shards: must be 1 to 4096, not 100000000000000000000000000000000000000000"],
        BOTH,
    ),
    (
        "[DE, FR]",
        "[DE, ZZ]",
        &["regions.yaml:11: zones.eu.countries[1]: must be an ISO 3166-1 alpha-2 code such as DE, not `ZZ`"],
        LOAD_ONLY,
    ),
    ("[DE, FR]", "[DE, fr]", &["regions.yaml:11: zones.eu.countries[1]: must be an ISO 3166-1 alpha-2 code such as DE, not `fr`"], BOTH),
    ("[DE, FR]", "[DE, DE]", &["regions.yaml:11: zones.eu.countries[1]: `DE` is listed twice"], BOTH),
    ("[DE, FR]", "[]", &["regions.yaml:11: zones.eu.countries: must list at least one country"], BOTH),
    (
        "\"127.0.0.1:7103\"",
        "127.0.0.1",
        &["regions.yaml:16: endpoints.eu_west.grpc: an endpoint is host:port, such as 127.0.0.1:7101 or [::1]:7101, not `127.0.0.1`"],
        BOTH,
    ),
    ("\"127.0.0.1:7103\"", "\"127.0.0.1:0\"", &["regions.yaml:16: endpoints.eu_west.grpc: a port is 1 to 65535, not `127.0.0.1:0`"], BOTH),
    (
        "\"127.0.0.1:7103\"",
        "\"127.0.0.1:70000\"",
        &["regions.yaml:16: endpoints.eu_west.grpc: a port is 1 to 65535, not `127.0.0.1:70000`"],
        BOTH,
    ),
    (
        "\"127.0.0.1:7103\"",
        "\"127.0.0.256:7103\"",
        &["regions.yaml:16: endpoints.eu_west.grpc: a host is an IP address or a host name (RFC 1123), not `127.0.0.256:7103`"],
        LOAD_ONLY,
    ),
    ("\"127.0.0.1:7103\"", "7103", &["regions.yaml:16: endpoints.eu_west.grpc: must be text, not 7103"], BOTH),
    ("retention_hours: 168", "retention_hours: 23", &["regions.yaml:18: outcomes.retention_hours: must be 24 to 8784, not 23"], BOTH),
    (
        "outcomes: {",
        "journal: {retention_hours: 167, retention_bytes: 1048576}\noutcomes: {",
        &[
            "regions.yaml:18: journal.retention_hours: must be 168 or more, as outcomes.retention_hours is, not 167: outcomes are read from the journal",
        ],
        LOAD_ONLY,
    ),
    (
        "outcomes: {",
        "journal: {retention_hours: 23}\noutcomes: {",
        &["regions.yaml:18: journal.retention_hours: must be 24 to 87840, not 23"],
        BOTH,
    ),
    (
        "outcomes: {",
        "journal: {retention_hours: 99999, retention_bytes: 1000}\noutcomes: {",
        &[
            "regions.yaml:18: journal.retention_hours: must be 24 to 87840, not 99999",
            "regions.yaml:18: journal.retention_bytes: must be 1048576 to 1125899906842624, not 1000",
        ],
        BOTH,
    ),
    (
        "outcomes: {",
        "journal: {retention_bytes: 1000}\noutcomes: {",
        &["regions.yaml:18: journal.retention_bytes: must be 1048576 to 1125899906842624, not 1000"],
        BOTH,
    ),
    (
        "outcomes: {",
        "journal: {retention_bytes: \"107374182400\"}\noutcomes: {",
        &[
            "regions.yaml:18: journal.retention_bytes: must be 1048576 to 1125899906842624, not text `107374182400`: write it without quotes",
        ],
        BOTH,
    ),
    (
        "outcomes: {",
        "journal: {retention_bytes: 100 GiB}\noutcomes: {",
        &["regions.yaml:18: journal.retention_bytes: must be 1048576 to 1125899906842624, not `100 GiB`"],
        BOTH,
    ),
    (
        "outcomes: {",
        "journal:\n  retention_bytes: 107,374,182,400\noutcomes: {",
        &[
            "regions.yaml:19: journal.retention_bytes: must be 1048576 to 1125899906842624, not text `107,374,182,400`: write it as 107374182400",
        ],
        BOTH,
    ),
    (
        "outcomes: {",
        "journal: {retention_bytes: 107_374_182_400_}\noutcomes: {",
        &[
            "regions.yaml:18: journal.retention_bytes: must be 1048576 to 1125899906842624, not text `107_374_182_400_`: write it as 107374182400",
        ],
        BOTH,
    ),
    (
        "outcomes: {",
        "journal: {}\noutcomes: {",
        &["regions.yaml:18: journal: must have retention_hours, retention_bytes or both; without `journal` everything is kept"],
        BOTH,
    ),
    (
        "outcomes: {",
        "audit: {retention_hours: 23, retention_bytes: 268435455}\noutcomes: {",
        &[
            "regions.yaml:18: audit.retention_hours: must be 24 to 87840, not 23",
            "regions.yaml:18: audit.retention_bytes: must be 268435456 to 1125899906842624, not 268435455",
        ],
        BOTH,
    ),
    (
        "outcomes: {",
        "audit: {}\noutcomes: {",
        &["regions.yaml:18: audit: must have retention_hours, retention_bytes or both; without `audit` there are bounds too"],
        BOTH,
    ),
    (
        "outcomes: {",
        "journal: {retention_hour: 30}\noutcomes: {",
        &["regions.yaml:18: journal.retention_hour: unknown key; did you mean `retention_hours`?"],
        BOTH,
    ),
    ("outcomes: {retention_hours: 168}", "outcomes: 168", &["regions.yaml:18: outcomes: must be a mapping, not 168"], BOTH),
];

const REGIONS: &[Row] = &[
    (
        "primary: false, services: [payment_processor], database: read_replica",
        "primary: true, services: [payment_processor], database: read_replica",
        &["regions.yaml:4: regions.us_west.primary: us_east is the primary already (line 3): a mesh has one"],
        LOAD_ONLY,
    ),
    ("primary: true", "primary: false", &["regions.yaml:2: regions: no region is the primary: set `primary: true` at one"], LOAD_ONLY),
    (
        "primary: true, services: [payment_processor], database: primary_master} # 3\n  us_west: {primary: false, services: [payment_processor], database: read_replica}",
        "primary: true, services: [payment_processor], database: read_replica} # 3\n  us_west: {primary: false, services: [payment_processor], database: regional_master}",
        &[
            "regions.yaml:3: regions.us_east.database: the primary region leads the directory, so its database must be a master, not read_replica",
        ],
        LOAD_ONLY,
    ),
    (
        "services: [payment_processor, vault]",
        "services: [vault]",
        &["regions.yaml:5: regions.eu_west.services: eu_west leads shards, so it must run payment_processor"],
        LOAD_ONLY,
    ),
    (
        "primary: false, services: [payment_processor], database: read_replica",
        "primary: false, services: [payment_processor], database: none",
        &["regions.yaml:4: regions.us_west.services: us_west has no database, so it must run vault and nothing else"],
        LOAD_ONLY,
    ),
    (
        "primary: false, services: [payment_processor], database: read_replica",
        "primary: false, services: [vault, fraud_detection], database: none",
        &["regions.yaml:4: regions.us_west.services: us_west has no database, so it must run vault and nothing else"],
        LOAD_ONLY,
    ),
    (
        "services: [payment_processor], database: primary_master} # 3\n  us_west: {primary: false, services: [payment_processor]",
        "services: [payment_processor, vault], database: primary_master} # 3\n  us_west: {primary: false, services: [payment_processor, vault]",
        &["regions.yaml:4: regions.us_west.services: us_east is the vault of the zone already (line 3): a zone has one"],
        LOAD_ONLY,
    ),
    (
        "services: [payment_processor], database: primary_master} # 3\n  us_west: {primary: false, services: [payment_processor], database: read_replica}",
        "services: [payment_processor, vault], database: primary_master} # 3\n  us_west: {primary: false, services: [vault], database: none}",
        &["regions.yaml:4: regions.us_west.services: us_east is the vault of the zone already (line 3): a zone has one"],
        LOAD_ONLY,
    ),
    (
        "services: [payment_processor], database: read_replica",
        "services: [payment_processor], database: read_replica, vault_keys: {pkcs11: {module: /usr/lib/p11.so, token: t}}",
        &["regions.yaml:4: regions.us_west.vault_keys: us_west does not run vault"],
        LOAD_ONLY,
    ),
    (
        "compliance: [GDPR]} # 5",
        "compliance: [GDPR], vault_keys: {pkcs11: {module: p11.so, token: 'a label of more than thirty-two bytes'}}} # 5",
        &[
            "regions.yaml:5: regions.eu_west.vault_keys.pkcs11.module: must be an absolute path, not `p11.so`",
            "regions.yaml:5: regions.eu_west.vault_keys.pkcs11.token: must be the token's label, 1 to 32 bytes, not `a label of more than thirty-two bytes`",
        ],
        BOTH,
    ),
    (
        "compliance: [GDPR]} # 5",
        "compliance: [GDPR], vault_keys: {}} # 5",
        &["regions.yaml:5: regions.eu_west.vault_keys.pkcs11: is missing"],
        BOTH,
    ),
    ("[us_east, us_west]", "[us_east]", &["regions.yaml:4: regions.us_west: is in no zone: list it in the `regions` of one"], LOAD_ONLY),
    (
        "    regions: [eu_west]",
        "    regions: [eu_west, eu_wset]",
        &["regions.yaml:10: zones.eu.regions[1]: no region is called `eu_wset`; did you mean `eu_west`?"],
        LOAD_ONLY,
    ),
    (
        "  us_west: {grpc: \"127.0.0.1:7102\", http: \"127.0.0.1:7202\"} # 14\n",
        "",
        &["regions.yaml:4: regions.us_west: has no endpoints: add `endpoints.us_west`"],
        LOAD_ONLY,
    ),
    (
        "endpoints: # 12",
        "endpoints:\n  mars: {grpc: \"127.0.0.1:9101\", http: \"127.0.0.1:9201\"}",
        &["regions.yaml:13: endpoints.mars: no region is called `mars`; the regions are: us_east, us_west, eu_west"],
        LOAD_ONLY,
    ),
    (
        "  us_west: {primary: false, services: [payment_processor], database: read_replica}",
        "  us_west:",
        &["regions.yaml:4: regions.us_west: must be a mapping, not nothing"],
        BOTH,
    ),
];

const ZONES: &[Row] = &[
    ("  eu: #", "  directory: #", &["regions.yaml:8: zones.directory: the name is the directory's own: choose another"], BOTH),
    ("  eu: #", "  eu_1: #", &["regions.yaml:8: zones.eu_1: a zone's name is 1 to 32 of a-z, 0-9 and -, beginning with a letter"], BOTH),
    (
        "database: regional_master",
        "database: read_replica",
        &["regions.yaml:8: zones.eu: no region of the zone is a master: give one the database primary_master or regional_master"],
        LOAD_ONLY,
    ),
    (
        "[DE, FR]",
        "[DE, FR, US]",
        &["regions.yaml:11: zones.eu.countries[2]: US is in zone global already (line 7): a country is in one zone"],
        LOAD_ONLY,
    ),
    (
        "    regions: [eu_west]",
        "    regions: [us_west, eu_west]",
        &[
            "regions.yaml:10: zones.eu.regions: eu_west is under the GDPR and us_west is not: personal data would leave it, so put them in zones of their own",
            "regions.yaml:10: zones.eu.regions[0]: us_west is in zone global already (line 7): a region is in one zone",
        ],
        LOAD_ONLY,
    ),
    (
        "read_replica} # 4",
        "read_replica, compliance: [GDPR]} # 4",
        &[
            "regions.yaml:7: zones.global.regions: us_west is under the GDPR and us_east is not: personal data would leave it, so put them in zones of their own",
        ],
        LOAD_ONLY,
    ),
];

const LEADERS: &[Row] = &[
    (
        "database: read_replica",
        "database: regional_master",
        &[
            "regions.yaml:7: zones.global: us_east and us_west are masters: say which shards each leads, such as leaders: {us_east: \"0-1\", us_west: \"2-3\"}",
        ],
        LOAD_ONLY,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: \"0-2\"},",
        &["regions.yaml:7: zones.global.leaders: no region leads shard 3"],
        LOAD_ONLY,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {},",
        &["regions.yaml:7: zones.global.leaders: no region leads 4 of the shards, 0 the first of them"],
        BOTH,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: \"0-4\"},",
        &["regions.yaml:7: zones.global.leaders.us_east: there is no shard 4: zone global has 0 to 3"],
        LOAD_ONLY,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: \"0-2, 2-3\"},",
        &["regions.yaml:7: zones.global.leaders.us_east: shard 2 has a leader already, us_east"],
        LOAD_ONLY,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: 0-3, us_west: 3},",
        &["regions.yaml:7: zones.global.leaders.us_west: us_west is a read_replica: only a master leads shards"],
        LOAD_ONLY,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: 0-2, eu_west: 3},",
        &["regions.yaml:7: zones.global.leaders.eu_west: eu_west is not in zone global"],
        LOAD_ONLY,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: 0-2, us_wets: 3},",
        &["regions.yaml:7: zones.global.leaders.us_wets: no region is called `us_wets`; did you mean `us_west`?"],
        LOAD_ONLY,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: 2-0},",
        &["regions.yaml:7: zones.global.leaders.us_east: must be shard numbers such as \"0-1\" or \"0-1, 3\", not `2-0`"],
        LOAD_ONLY,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: all},",
        &["regions.yaml:7: zones.global.leaders.us_east: must be shard numbers such as \"0-1\" or \"0-1, 3\", not `all`"],
        BOTH,
    ),
    (
        "{shards: 4,",
        "{shards: 4, leaders: {us_east: -1},",
        &["regions.yaml:7: zones.global.leaders.us_east: must be shard numbers such as \"0-1\" or \"0-1, 3\", not -1"],
        BOTH,
    ),
    ("{shards: 4,", "{shards: 4, leaders: us_east,", &["regions.yaml:7: zones.global.leaders: must be a mapping, not `us_east`"], BOTH),
];

const ADDRESSES: &[Row] = &[
    (
        "127.0.0.1:7103",
        "127.0.0.1:7102",
        &["regions.yaml:16: endpoints.eu_west.grpc: 127.0.0.1:7102 overlaps 127.0.0.1:7102, the grpc endpoint of us_west (line 14)"],
        LOAD_ONLY,
    ),
    (
        "127.0.0.1:7203",
        "127.0.0.1:7103",
        &["regions.yaml:17: endpoints.eu_west.http: 127.0.0.1:7103 overlaps 127.0.0.1:7103, the grpc endpoint of eu_west (line 16)"],
        LOAD_ONLY,
    ),
    (
        "127.0.0.1:7103",
        "0.0.0.0:7201",
        &["regions.yaml:16: endpoints.eu_west.grpc: 0.0.0.0:7201 overlaps 127.0.0.1:7201, the http endpoint of us_east (line 13)"],
        LOAD_ONLY,
    ),
    (
        "127.0.0.1:7103",
        "localhost:7102",
        &["regions.yaml:16: endpoints.eu_west.grpc: localhost:7102 overlaps 127.0.0.1:7102, the grpc endpoint of us_west (line 14)"],
        LOAD_ONLY,
    ),
];

const LIMITS: &[Row] = &[
    (
        "outcomes: {",
        "limits: {connections: 15, idle_connection_seconds: 90000, header_bytes: 16 KiB}\noutcomes: {",
        &[
            "regions.yaml:18: limits.connections: must be 16 to 1048576, not 15",
            "regions.yaml:18: limits.idle_connection_seconds: must be 1 to 86400, not 90000",
            "regions.yaml:18: limits.header_bytes: must be 4096 to 65536, not `16 KiB`",
        ],
        BOTH,
    ),
    (
        "outcomes: {",
        "limits:\n  connections_per_addres: 10\noutcomes: {",
        &["regions.yaml:19: limits.connections_per_addres: unknown key; did you mean `connections_per_address`?"],
        BOTH,
    ),
    (
        "outcomes: {",
        "limits: {resets_per_second: 0}\noutcomes: {",
        &["regions.yaml:18: limits.resets_per_second: must be 1 to 1000000, not 0"],
        BOTH,
    ),
    (
        "outcomes: {",
        "limits: {control_frames_per_second: 1.5}\noutcomes: {",
        &["regions.yaml:18: limits.control_frames_per_second: must be 1 to 1000000, not 1.5"],
        BOTH,
    ),
    (
        "outcomes: {",
        "limits: {trusted_networks: 10.0.0.0/8}\noutcomes: {",
        &["regions.yaml:18: limits.trusted_networks: must be a list, not `10.0.0.0/8`"],
        BOTH,
    ),
    (
        "outcomes: {",
        "limits: {trusted_networks: []}\noutcomes: {",
        &["regions.yaml:18: limits.trusted_networks: must list at least one network"],
        BOTH,
    ),
    (
        "outcomes: {",
        "limits: {trusted_networks: [10.0.0.0/8, balancers.internal]}\noutcomes: {",
        &[
            "regions.yaml:18: limits.trusted_networks[1]: a network is an IP address and how many of its bits count, such as 10.0.0.0/8 or 2001:db8::/32, or an address alone, not `balancers.internal`",
        ],
        BOTH,
    ),
    (
        "outcomes: {",
        "limits: {trusted_networks: [10.0.0.1/8]}\noutcomes: {",
        &["regions.yaml:18: limits.trusted_networks[0]: a network's address is its first, whose other bits are zero, not `10.0.0.1/8`"],
        LOAD_ONLY,
    ),
    (
        "outcomes: {",
        "limits: {trusted_networks: [10.0.0.0/8, 10.0.0.0/8]}\noutcomes: {",
        &["regions.yaml:18: limits.trusted_networks[1]: `10.0.0.0/8` is listed twice"],
        BOTH,
    ),
    ("outcomes: {", "limits: {}\noutcomes: {", &["regions.yaml:18: limits: must have a key; without `limits` all are the defaults"], BOTH),
    ("outcomes: {", "limits: none\noutcomes: {", &["regions.yaml:18: limits: must be a mapping, not `none`"], BOTH),
];

const NOT_PLAIN_YAML: &[Row] = &[
    ("zones: # 6", "zones: [", &["regions.yaml:8: while parsing a flow mapping, did not find expected ',' or '}'"], LOAD_ONLY),
    ("[DE, FR]", "&countries [DE, FR]", &["regions.yaml:11: has an anchor: write the value out where it is used"], LOAD_ONLY),
    ("[DE, FR]", "!set [DE, FR]", &["regions.yaml:11: unsupported tag `!set`"], LOAD_ONLY),
    ("outcomes: {", "---\noutcomes: {", &["regions.yaml:19: only single YAML document expected but multiple found"], LOAD_ONLY),
];

#[test]
fn the_sound_file_is_sound() {
    assert_eq!(problems(SOUND), [""; 0]);
    Schema::shipped().validate(SOUND).expect("the schema takes it");
}

#[test]
fn every_mistake_is_refused_with_its_file_line_and_key() {
    let schema = Schema::shipped();
    let mut wrong = Vec::new();
    for table in [KEYS, VALUES, REGIONS, ZONES, LEADERS, ADDRESSES, LIMITS, NOT_PLAIN_YAML] {
        for (from, to, expected, by_schema) in table {
            let yaml = edit(SOUND, from, to);
            let found = problems(&yaml);
            if found != *expected {
                wrong.push(format!("{to}\n  expected {expected:#?}\n  found {found:#?}"));
            }
            if *by_schema && schema.validate(&yaml).is_ok() {
                wrong.push(format!("{to}\n  the schema takes it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let mut yaml = SOUND.to_owned();
    for (from, to) in [
        ("primary: true", "primry: true"),
        ("database: read_replica", "database: replica"),
        ("    shards: 2", "    shards: 0"),
        ("[DE, FR]", "[DE, US, ZZ]"),
        ("127.0.0.1:7103", "127.0.0.1:7102"),
        ("retention_hours: 168", "retention_hours: 1"),
    ] {
        yaml = edit(&yaml, from, to);
    }
    let keys: Vec<String> = Topology::parse("regions.yaml", &yaml)
        .expect_err("refused")
        .problems()
        .iter()
        .map(|problem| format!("{}:{} {}", problem.line.unwrap_or_default(), problem.column.unwrap_or_default(), problem.key))
        .collect();
    assert_eq!(
        keys,
        [
            "3:3 regions.us_east.primary",
            "3:13 regions.us_east.primry",
            "4:70 regions.us_west.database",
            "9:13 zones.eu.shards",
            "11:21 zones.eu.countries[1]",
            "11:25 zones.eu.countries[2]",
            "16:11 endpoints.eu_west.grpc",
            "18:29 outcomes.retention_hours",
        ]
    );
}

#[test]
fn what_the_loader_takes_the_schema_takes() {
    let schema = Schema::shipped();
    for (from, to) in [
        ("outcomes: {retention_hours: 168} # 18\n", ""),
        ("{shards: 4,", "{shards: 4, leaders: {us_east: ' 0 - 1 , 2,3'},"),
        ("{shards: 4,", "{shards: 1, leaders: {us_east: 0},"),
        ("127.0.0.1:7103", "[::1]:7103"),
        ("127.0.0.1:7103", "node-1.eu.paymesh.internal:65535"),
        ("[DE, FR]", "[DE, FR, NO]"),
        ("mesh: test", "mesh: t"),
        ("outcomes: {", "limits: {connections_per_address: 1, trusted_networks: ['2001:db8::/32', 192.0.2.7, \"::1\"]}\noutcomes: {"),
    ] {
        let yaml = edit(SOUND, from, to);
        assert_eq!(problems(&yaml), [""; 0], "{to}");
        schema.validate(&yaml).unwrap_or_else(|error| panic!("{to}: {error}"));
    }
}
