//! The readers of a file's tag agree on every text, and what is read can be written again.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use ribera_fuzz::{is_clean, read_everything};
use ribera_storage::delta::AddFile;
use ribera_storage::delta::tags::{self, UNITS_TAG};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = AddFile {
        path: "store_id=s1/month=2026-01/part-1.parquet".to_owned(),
        partition_values: BTreeMap::new(),
        size: 1,
        modification_time: 1_769_904_000_000,
        data_change: true,
        stats: None,
        tags: Some(BTreeMap::from([(UNITS_TAG.to_owned(), Some(text.to_owned()))])),
    };
    read_everything(&file);
    match file.units() {
        Ok(units) => {
            // A text with names that are no columns' is read, and never written.
            if let Ok(written) = tags::encode(&units) {
                let again = tags::decode(&written, jiff::Timestamp::UNIX_EPOCH).expect("its own text");
                assert_eq!(again.len(), units.len());
            }
        }
        Err(error) => assert!(is_clean(error.message()), "{error:?}"),
    }
});
