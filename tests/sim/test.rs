//! Twenty seeds of the simulation (those that failed once first); `./run soak` runs 200.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ribera_tests::sim::run::{Options, kept_seeds, run_seed, run_seeds};

const SEEDS: u64 = 20;

#[test]
fn no_invariant_breaks_in_twenty_seeds_with_faults() {
    let mut seeds = kept_seeds();
    seeds.extend((0..SEEDS).filter(|seed| !seeds.contains(seed)).collect::<Vec<_>>());
    let report = run_seeds(&seeds, &Options::default());
    println!("{}", report.to_text());
    assert!(report.is_good(), "{}", report.to_text());
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let options = Options { stores: 6, days: 3, ..Options::default() };
    let digests: Vec<_> = [1, 1, 2].iter().map(|seed| run_seed(*seed, &options).digest).collect();
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}
