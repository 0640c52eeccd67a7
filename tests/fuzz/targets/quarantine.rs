//! A quarantine record of any bytes makes its own store doubtful at most.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ribera_core::coverage::DayState;
use ribera_fuzz::{DAY, HOSTILE, others_are_unharmed, put, state, world};
use ribera_storage::Unit;
use ribera_storage::batch::QuarantineRecord;

fuzz_target!(|bytes: &[u8]| {
    let world = world();
    // Of a later batch than the one that won the day.
    put(&world, "quarantine/s1/ventas/000000-0000000009.json", bytes);
    let coverage = others_are_unharmed(&world);
    let is_complete = state(&coverage, HOSTILE) == DayState::Complete;
    match serde_json::from_slice::<QuarantineRecord>(bytes) {
        Ok(record) => {
            let says_so = record.units.is_empty() || record.units.contains(&Unit::Day(DAY));
            assert!(!(says_so && is_complete), "a day of a refused batch is complete");
            let text = serde_json::to_vec(&record).expect("JSON");
            assert_eq!(serde_json::from_slice::<QuarantineRecord>(&text).expect("its own JSON"), record);
        }
        Err(_) => assert!(!is_complete, "an unreadable record counts as none"),
    }
});
