//! The run: load, faults and samples at the same time, then rest, and the proof.

use std::{
    env,
    process::Stdio,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use paymesh_contract::wallet::v1::{GetBalanceRequest, wallet_service_client::WalletServiceClient};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tonic::Request;

use crate::{
    cuts, history,
    load::{self, Gauge},
    plan,
    support::Run,
    world::{Carrier, REGIONS, World},
};

/// How long things go wrong in the ordinary form, and in the nightly one.
const ORDINARY: Duration = Duration::from_secs(40);
const NIGHTLY: Duration = Duration::from_secs(300);
/// Payments between zones that the nightly form makes; it takes longer where it must.
const NIGHTLY_CROSSED: u64 = 100_000;
/// Payments of a batch at most.
const ORDINARY_BATCH_MAX: usize = 48;
const NIGHTLY_BATCH_MAX: usize = 256;
/// How long the nightly form goes on for them at most.
const NIGHTLY_MAX: Duration = Duration::from_secs(1_800);
/// How long the mesh may take until everything has arrived everywhere, once all is healed.
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// The seed of the ordinary form: everybody's failures are the same.
const SEED: u64 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn no_money_is_lost_or_made_while_links_fail_and_nodes_die() {
    let name = "run::no_money_is_lost_or_made_while_links_fail_and_nodes_die";
    let Some(carrier) = Carrier::choose(name) else { return };
    let nightly = env::var_os("PAYMESH_SOAK").is_some_and(|value| value == "1");
    let given = env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seed: u64 = given.unwrap_or_else(|| if nightly { rand::random() } else { SEED });
    println!("SEED={seed} PAYMESH_FAULTS_NETWORK={}", if carrier == Carrier::Packets { "namespaces" } else { "proxies" });

    let world = World::start(carrier, seed).await;
    load::enrol(&world.entries).await;
    links_do_as_they_are_told(&world).await;

    let begun = Instant::now();
    let gauge = Arc::new(Gauge::default());
    let batch_max = if nightly { NIGHTLY_BATCH_MAX } else { ORDINARY_BATCH_MAX };
    let (entries, of_load) = (world.entries.clone(), gauge.clone());
    let load = tokio::spawn(async move { load::run(&entries, seed, batch_max, &of_load).await });
    let stop_cuts = Arc::default();
    let sampling = tokio::spawn(cuts::sample(world.entries.clone(), world.config.clone(), Arc::clone(&stop_cuts)));
    for round in 0.. {
        let plan = plan::draw(seed.wrapping_add(round), REGIONS.len(), if nightly { NIGHTLY } else { ORDINARY });
        for fault in &plan {
            println!("{fault}");
        }
        world.suffer(plan).await;
        println!("after {:.0?}: {} payments between zones", begun.elapsed(), gauge.crossed.load(Relaxed));
        let enough = !nightly || gauge.crossed.load(Relaxed) >= NIGHTLY_CROSSED || begun.elapsed() > NIGHTLY_MAX;
        if enough || load.is_finished() || sampling.is_finished() {
            break;
        }
    }
    let suffered = begun.elapsed();
    gauge.stop.store(true, Relaxed);
    let record = load.await.unwrap();
    stop_cuts.store(true, Relaxed);
    let answered = Instant::now();
    let (cuts, settled) = tokio::join!(sampling, settle(&world));
    let cuts = cuts.unwrap();
    println!(
        "{:.0?} of faults: {} payments, {} of them between zones, {} refunds, {} requests sent again, {} own writes read, {} of them from copies\n\
         {} whole cuts and {} partial ones, in them {} ways between shards, {} of them with money in transit; `paymesh verify` ran {} times, {} of them over everything",
        suffered,
        record.paid.len(),
        gauge.crossed.load(Relaxed),
        record.refunded.len(),
        record.repeated,
        record.own_writes_read,
        record.read_from_copies,
        cuts.whole,
        cuts.partial,
        cuts.ways,
        cuts.ways_in_transit,
        cuts.verified,
        cuts.verified_whole
    );
    assert!(record.wrong.is_empty(), "{:#?}\n{}", record.wrong, world.logs());
    assert!(cuts.wrong.is_empty(), "a cut does not add up: {:#?}\n{}", cuts.wrong, world.logs());
    assert!(cuts.verified > 0 && cuts.ways_in_transit > 0, "the samples show little: {cuts:?}");
    assert!(
        !nightly || gauge.crossed.load(Relaxed) >= NIGHTLY_CROSSED,
        "too few payments between zones for what the nightly form is to show"
    );

    let settled = settled.unwrap_or_else(|why| panic!("{why}\n{}", world.logs()));
    println!("settled {:.1?} after the last answer", settled - answered);
    prove(&world).await;
    let lines = history::check(&world.entries, &record).await;
    println!("{lines} lines of statements are what was acknowledged");
}

/// Before anything is drawn: a call over a link takes its time, and does not get through one that is cut either way.
async fn links_do_as_they_are_told(world: &World) {
    // A user whose home is us_east, asked for at us_west.
    let (entry, home) = (1, 0);
    let ask = async |wait_ms: u64| {
        let mut request = Request::new(GetBalanceRequest { user_id: 102, read: None });
        request.set_timeout(Duration::from_millis(wait_ms));
        let begun = Instant::now();
        WalletServiceClient::new(world.entries[entry].clone()).get_balance(request).await.map(|_| begun.elapsed())
    };
    let delay = world.links.watch(entry, home).borrow().delay;
    let took = ask(5_000).await.unwrap();
    assert!(took >= 2 * delay && took < 2 * delay + Duration::from_secs(1), "{took:?} with {delay:?} each way");
    for (from, to) in [(entry, home), (home, entry)] {
        world.links.cut_one_way(from, to);
        assert!(ask(1_000).await.is_err(), "the link from {from} to {to} is cut");
        world.links.heal(from, to);
        timeout(Duration::from_secs(20), async { while ask(2_000).await.is_err() {} }).await.expect("it is healed");
    }
}

/// Waits until everything that was sent has arrived, and every copy is at its leader's end. Or says what has not.
async fn settle(world: &World) -> Result<Instant, String> {
    let until = Instant::now() + SETTLED_MAX;
    let mut last_heads = None;
    loop {
        let status = status(world).await;
        let heads: Vec<_> = status["shards"].as_array().unwrap().iter().map(|shard| shard["head_sequence"].clone()).collect();
        match unsettled(&status) {
            None if last_heads.as_ref() == Some(&heads) => return Ok(Instant::now()),
            Some(why) if Instant::now() > until => return Err(format!("not settled {SETTLED_MAX:?} after the last answer: {why}")),
            None if Instant::now() > until => return Err(format!("the journals grow although nobody writes: {heads:?}")),
            _ => {}
        }
        last_heads = Some(heads);
        // Longer than shards gather what they tell each other.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

async fn status(world: &World) -> Value {
    let mut command = world.mesh().command(&["status", "--json"]);
    let run = tokio::task::spawn_blocking(move || Run::from(command.stdin(Stdio::null()).output().unwrap())).await.unwrap();
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// What is not at rest yet.
fn unsettled(status: &Value) -> Option<String> {
    let list = |name: &str| status[name].as_array().unwrap().clone();
    let shard =
        list("shards").into_iter().find(|shard| shard["state"] != "serving" || shard["projected_sequence"] != shard["head_sequence"]);
    let way = list("in_transit").into_iter().find(|way| way["in_transit_minor_units"] != 0);
    let copy = list("replicas").into_iter().find(|copy| copy["state"] != "streaming" || copy["lag_entries"] != 0);
    let region = list("regions").into_iter().find(|region| region["up"] != true);
    region.or(shard).or(copy).or(way).map(|found| found.to_string())
}

/// Every copy is its leader's, nothing is in transit, every sum is zero.
async fn prove(world: &World) {
    let report = cuts::verify(&world.config).await.unwrap_or_else(|run| panic!("{run:?}"));
    assert_eq!(report["good"], true, "{report:#}\n{}", world.logs());
    assert_eq!(cuts::wrong(&report), Vec::<String>::new());
    let shards = report["shards"].as_array().unwrap();
    let copies = report["copies"].as_array().unwrap();
    // In each zone the shards of the zone that others lead (us_east 1, us_west 1, eu_south 2); where shards are led those of the
    // other zone (2 each in three regions); and the directory in three.
    assert_eq!(copies.len(), 13, "{report:#}");
    for copy in copies {
        let leader = shards.iter().find(|shard| shard["shard"] == copy["shard"]).unwrap();
        assert!(copy["good"] == true && copy["sequence"] == leader["sequence"], "{copy} is not at its leader's end: {leader}");
    }
    for way in report["in_transit"].as_array().unwrap() {
        assert_eq!(way["in_transit_minor_units"], 0, "{way}");
    }
}
