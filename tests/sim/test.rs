//! What the simulation itself promises. Its seeds are run by `./run test sim` and `./run soak sim`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ribera_tests::sim::run::{Options, run_seed};

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let options = Options { stores: 6, days: 3, ..Options::default() };
    let digests: Vec<_> = [1, 1, 2].iter().map(|seed| run_seed(*seed, &options).digest).collect();
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}
