use futures::executor::block_on;

use super::*;
use crate::object::MemoryStore;

fn store(id: &str) -> StoreDefinition {
    StoreDefinition::new(id.parse().unwrap(), format!("Tienda {id}"), "Europe/Madrid")
}

#[test]
fn stores_published_in_bulk_are_loaded_as_they_are_and_unchanged_ones_get_no_new_number() {
    block_on(async {
        let objects = MemoryStore::new();
        let mut stores: Vec<_> = (0..300).map(|n| store(&format!("s{n:03}"))).collect();
        assert!(publish_stores(&objects, &stores).await.unwrap().iter().all(|p| p.changed && p.number == 1));
        assert_eq!(load_stores(&objects).await.unwrap(), stores);
        stores[7].name = "Otra".into();
        let again = publish_stores(&objects, &stores).await.unwrap();
        assert_eq!(again.iter().filter(|p| p.changed).count(), 1);
        assert_eq!(again[7], Published { number: 2, changed: true });
        assert_eq!(load_stores(&objects).await.unwrap(), stores);
        assert_eq!(load_store(&objects, &stores[7].id).await.unwrap().unwrap().name, "Otra");
        assert_eq!(load_store(&objects, &"x".parse().unwrap()).await.unwrap(), None);
    });
}

#[test]
fn a_lost_or_unreadable_packed_copy_changes_nothing_that_is_loaded() {
    block_on(async {
        let objects = MemoryStore::new();
        let stores: Vec<_> = (0..100).map(|n| store(&format!("s{n:03}"))).collect();
        publish_stores(&objects, &stores).await.unwrap();
        let packed = list_all(&objects, "control/stores.packed/", None).await.unwrap();
        assert_eq!(packed.len(), 1);
        objects.put(&packed[0].path, Bytes::from_static(b"{").into()).await.unwrap();
        assert_eq!(load_stores(&objects).await.unwrap(), stores);
    });
}

#[test]
fn a_dataset_falls_back_to_the_shipped_one_until_it_is_published() {
    block_on(async {
        let objects = MemoryStore::new();
        let name: DatasetName = "ventas".parse().unwrap();
        let mut dataset = load_dataset(&objects, &name).await.unwrap().unwrap();
        assert!(load_published_datasets(&objects).await.unwrap().is_empty());
        dataset.lookback_days = 30;
        assert!(publish_dataset(&objects, &dataset).await.unwrap().changed);
        assert!(!publish_dataset(&objects, &dataset).await.unwrap().changed);
        assert_eq!(load_dataset(&objects, &name).await.unwrap().unwrap().lookback_days, 30);
        assert_eq!(load_datasets(&objects).await.unwrap().len(), SHIPPED.len());
        assert_eq!(load_dataset(&objects, &"nada".parse().unwrap()).await.unwrap(), None);
    });
}

#[test]
fn publishing_a_dataset_change_that_tables_cannot_take_is_refused_naming_column_and_types() {
    block_on(async {
        let objects = MemoryStore::new();
        let mut dataset = shipped("ventas").unwrap().unwrap();
        publish_dataset(&objects, &dataset).await.unwrap();
        dataset.columns[3].column_type = "text".parse().unwrap();
        let error = publish_dataset(&objects, &dataset).await.unwrap_err().to_string();
        for word in ["linea", "int32", "text"] {
            assert!(error.contains(word), "{error}");
        }
    });
}

#[test]
fn settings_have_defaults_and_refuse_what_contradicts() {
    assert_eq!(Settings::from_toml("").unwrap().yellow_percent, 80);
    for (text, word) in [("yellow_percent = 101", "101"), ("colour = 1", "colour"), ("[shards.ventas]", "shards")] {
        let error = Settings::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn settings_published_are_loaded() {
    block_on(async {
        let objects = MemoryStore::new();
        assert_eq!(load_settings(&objects).await.unwrap(), Settings::default());
        let settings = Settings { yellow_percent: 70, ..Settings::default() };
        publish_settings(&objects, &settings).await.unwrap();
        assert_eq!(load_settings(&objects).await.unwrap(), settings);
    });
}
