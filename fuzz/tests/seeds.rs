//! Every seed, and every input that once failed and was kept, passes its target; so do seeds that were bent at random.
//!
//! Bending needs no nightly and no libFuzzer, and finds much less than they do (`cargo xtask fuzz`). The random seed is
//! printed, and `PAYMESH_FUZZ_SEED` sets it; with `PAYMESH_SOAK=1` each target is bent for a minute.

#![forbid(unsafe_code)]

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

/// Bent inputs for each target.
const ROUNDS: u64 = 2_000;
/// How long each target is bent in a soak.
const SOAK_TIME: Duration = Duration::from_secs(60);
/// Changes to one input at most.
const BENDS_MAX: u64 = 6;

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).expect("the target has seeds").map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no seeds", folder.display());
    let mut seeds = Vec::new();
    for path in paths {
        println!("{}", path.display());
        seeds.push(fs::read(&path).expect("a seed can be read"));
        check(&seeds[seeds.len() - 1]);
    }

    let seed = match env::var("PAYMESH_FUZZ_SEED") {
        Ok(seed) => seed.parse().expect("PAYMESH_FUZZ_SEED is a number"),
        Err(_) => {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |now| now.as_secs() << 30 | u64::from(now.subsec_nanos()))
        }
    };
    println!("PAYMESH_FUZZ_SEED={seed}");
    let soak = env::var_os("PAYMESH_SOAK").is_some_and(|value| value == "1");
    let (mut random, begun, mut rounds) = (Random(seed), Instant::now(), 0);
    while if soak { begun.elapsed() < SOAK_TIME } else { rounds < ROUNDS } {
        rounds += 1;
        check(&bend(&seeds, &mut random));
    }
    println!("{target}: {rounds} bent inputs");
}

/// A seed with some bytes changed, doubled, dropped, or followed by a part of another seed.
fn bend(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.next() % BENDS_MAX {
        let at = random.below(bytes.len() + 1);
        match random.next() % 7 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (random.next() % 8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.insert(at, random.next() as u8),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            5 => {
                let end = at + random.below(bytes.len() - at + 1);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    bytes
}

/// SplitMix64: plenty for bending, and no dependency.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[test]
fn region_config_holds_for_its_seeds_and_what_is_near_them() {
    run("region_config", paymesh_fuzz::region_config);
}

#[test]
fn request_path_holds_for_its_seeds_and_what_is_near_them() {
    run("request_path", paymesh_fuzz::request_path);
}

#[test]
fn segment_decoder_holds_for_its_seeds_and_what_is_near_them() {
    run("segment_decoder", paymesh_fuzz::segment_decoder);
}

#[test]
fn border_segment_holds_for_its_seeds_and_what_is_near_them() {
    run("border_segment", paymesh_fuzz::border_segment);
}

#[test]
fn entry_codec_holds_for_its_seeds_and_what_is_near_them() {
    run("entry_codec", paymesh_fuzz::entry_codec);
}

#[test]
fn access_config_holds_for_its_seeds_and_what_is_near_them() {
    run("access_config", paymesh_fuzz::access_config);
}

#[test]
fn jwt_holds_for_its_seeds_and_what_is_near_them() {
    run("jwt", paymesh_fuzz::jwt);
}
