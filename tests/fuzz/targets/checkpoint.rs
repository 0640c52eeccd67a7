//! A checkpoint of any bytes is believed or passed over: the log behind it is still read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ribera_fuzz::{compute, let_panics_be_caught, load, put, read_everything, world};

fuzz_target!(|bytes: &[u8]| {
    let_panics_be_caught();
    let world = world();
    put(&world, "lake/ventas/_delta_log/00000000000000000000.checkpoint.parquet", bytes);
    put(&world, "lake/ventas/_delta_log/_last_checkpoint", br#"{"version":0,"size":4}"#);
    // The whole log is there: whatever the checkpoint is, the table can be read.
    let snapshot = load(&world).expect("the log behind it").expect("a table");
    snapshot.files().for_each(read_everything);
    compute(&world).expect("a table that loads has coverage");
});
