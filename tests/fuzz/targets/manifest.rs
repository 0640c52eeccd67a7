//! A manifest of any bytes is refused with a printable reason, or every later step can take it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ribera_fuzz::{is_clean, others_are_unharmed, put, tags_of, world};
use ribera_storage::batch::Manifest;
use ribera_storage::delta::tags;

fuzz_target!(|bytes: &[u8]| {
    let world = world();
    put(&world, "inbox/s1/ventas/000000-0000000009.json", bytes);
    others_are_unharmed(&world);
    let manifest = match Manifest::from_json(bytes) {
        Ok(manifest) => manifest,
        Err(error) => return assert!(is_clean(error.message()), "{error:?}"),
    };
    let again = Manifest::from_json(&manifest.to_json().expect("JSON")).expect("its own JSON");
    assert_eq!(manifest, Manifest { contract: manifest.contract, ..again });
    let units = tags_of(&manifest);
    let text = tags::encode(&units).expect("valid facts have a tag");
    assert!(is_clean(&text));
});
