//! A heartbeat of any bytes harms nobody, and one that is read is written back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ribera_core::coverage::Evidence;
use ribera_fuzz::{others_are_unharmed, put, world};
use ribera_storage::dataset::{DatasetKind, SHIPPED, shipped};
use ribera_storage::heartbeat::Heartbeat;

fuzz_target!(|bytes: &[u8]| {
    let world = world();
    put(&world, "agents/s1/heartbeat.json", bytes);
    others_are_unharmed(&world);
    // Datasets of whole tables are the ones that ask it.
    let tables: Vec<_> = SHIPPED
        .iter()
        .filter_map(|(name, _)| shipped(name)?.ok())
        .filter(|one| one.kind == DatasetKind::Dimension)
        .collect();
    futures::executor::block_on(Evidence::gather(&world.objects, &tables)).expect("evidence");
    if let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(bytes) {
        let text = serde_json::to_vec(&heartbeat).expect("JSON");
        assert_eq!(serde_json::from_slice::<Heartbeat>(&text).expect("its own JSON"), heartbeat);
    }
});
