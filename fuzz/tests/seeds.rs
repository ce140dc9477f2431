//! Every seed, and every input that once failed and was kept, passes its target.

#![forbid(unsafe_code)]

use std::{fs, path::Path};

fn run_seeds(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).expect("the target has seeds") {
        let path = entry.expect("the folder can be read").path();
        println!("{}", path.display());
        check(&fs::read(&path).expect("a seed can be read"));
        seeds += 1;
    }
    assert!(seeds > 0, "{} holds no seeds", folder.display());
}

#[test]
fn region_config_holds_for_its_seeds() {
    run_seeds("region_config", paymesh_fuzz::region_config);
}

#[test]
fn request_path_holds_for_its_seeds() {
    run_seeds("request_path", paymesh_fuzz::request_path);
}

#[test]
fn segment_decoder_holds_for_its_seeds() {
    run_seeds("segment_decoder", paymesh_fuzz::segment_decoder);
}

#[test]
fn entry_codec_holds_for_its_seeds() {
    run_seeds("entry_codec", paymesh_fuzz::entry_codec);
}
