//! The readers of a file's tag agree on every text, and what is read can be written again.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use ribera_fuzz::{is_clean, read_everything};
use ribera_storage::delta::{AddFile, LoadedFacts};
use ribera_storage::delta::tags::{self, UNITS_TAG};

/// The first and the last store that a text names.
fn ends(text: &str) -> Option<String> {
    let stores: Vec<&str> = tags::stores(text).collect();
    Some(format!("{},{}", stores.first()?, stores.last()?))
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = AddFile {
        path: "month=2026-01/part-1.parquet".to_owned(),
        partition_values: BTreeMap::new(),
        size: 1,
        modification_time: 1_769_904_000_000,
        data_change: true,
        stats: None,
        tags: Some(BTreeMap::from([
            (UNITS_TAG.to_owned(), Some(text.to_owned())),
            // As it would be written: else every text is refused before it is read.
            ("ribera.stores".to_owned(), ends(text)),
        ])),
        facts: LoadedFacts::default(),
    };
    read_everything(&file);
    match file.units() {
        Ok(units) => {
            // A text with names that are no columns' is read, and never written.
            if let Ok(written) = tags::encode(&units) {
                let again = tags::decode(&written).expect("its own text");
                assert_eq!(again.len(), units.len());
            }
        }
        Err(error) => assert!(is_clean(error.message()), "{error:?}"),
    }
});
