//! A log entry of any bytes gives a table or an error, and no reader of the table panics.
#![no_main]

use jiff::civil::date;
use libfuzzer_sys::fuzz_target;
use ribera_fuzz::{compute, entry_path, load, put, read_everything, world};
use ribera_storage::delta::{MergeOptions, action, merge_plan};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(actions) = action::from_lines(bytes) {
        let lines = action::to_lines(&actions).expect("JSON");
        assert_eq!(action::from_lines(&lines).expect("its own lines").len(), actions.len());
    }
    let world = world();
    put(&world, &entry_path(1), bytes);
    let Ok(Some(snapshot)) = load(&world) else { return };
    for file in snapshot.files() {
        read_everything(file);
        let _ = file.object_path(snapshot.table());
    }
    let _ = merge_plan(&snapshot, date(2026, 2, 1), &MergeOptions::default());
    compute(&world).expect("a table that loads has coverage");
});
