//! A list of differing units of any bytes makes its own store doubtful at most.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ribera_core::coverage::DayState;
use ribera_fuzz::{DAY, HOSTILE, others_are_unharmed, put, state, world};
use ribera_storage::Unit;
use ribera_storage::batch::Differing;

fuzz_target!(|bytes: &[u8]| {
    let world = world();
    put(&world, "agents/s1/ventas/differing/0000000007.json", bytes);
    let coverage = others_are_unharmed(&world);
    let is_complete = state(&coverage, HOSTILE) == DayState::Complete;
    match serde_json::from_slice::<Differing>(bytes) {
        // The day's batch is the third of epoch 0.
        Ok(list) => {
            let named = list.units.iter().any(|one| {
                one.unit == Unit::Day(DAY) && (one.awaits.epoch, one.awaits.sequence) > (0, 3)
            });
            assert!(!(named && is_complete), "a day that the list names is complete");
        }
        Err(_) => assert!(!is_complete, "an unreadable list counts as none"),
    }
});
