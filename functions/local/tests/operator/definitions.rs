//! `ribera store`, `dataset` and `tables`.

use serde_json::json;

use super::fixture::{Lake, ventas};

#[test]
fn many_stores_are_declared_from_one_file_and_again_without_change() {
    let lake = Lake::new(&[]);
    let stores: String =
        (0..30).map(|n| format!("[[store]]\nid = \"t{n:02}\"\nname = \"T {n}\"\ntime_zone = \"UTC\"\n")).collect();
    std::fs::write(lake.path("stores.toml"), stores).unwrap();
    let changed = |answer: serde_json::Value| {
        answer["stores"].as_array().unwrap().iter().filter(|store| store["changed"] == true).count()
    };
    assert_eq!(changed(lake.json(&["store", "add", "--file", "stores.toml"]).0), 30);
    assert_eq!(changed(lake.json(&["store", "add", "--file", "stores.toml"]).0), 0);
    assert_eq!(lake.json(&["store", "list"]).0["stores"].as_array().unwrap().len(), 30);
}

#[test]
fn a_store_is_declared_by_flags_and_a_bad_one_is_refused_naming_the_field() {
    let lake = Lake::new(&[]);
    let good = ["store", "add", "centro", "--zone", "America/Santiago", "--tenant", "76.123.456-7", "--rest", "sunday"];
    assert_eq!(lake.json(&good).1, 0);
    let store = &lake.json(&["store", "list"]).0["stores"][0];
    assert_eq!((&store["tenant"], &store["rest_days"]), (&json!("761234567"), &json!(["sunday"])));
    for (words, named) in [
        (&["store", "add", "x", "--zone", "Mars/Base"][..], "Mars/Base"),
        (&["store", "add", "Centro Uno", "--zone", "UTC"], "Centro Uno"),
        (&["store", "add", "x", "--zone", "UTC", "--rest", "domingo"], "domingo"),
        (&["store", "add", "x", "--zone", "UTC", "--opened", "2026-02-01", "--closed", "2026-01-01"], "2026-01-01"),
        (&["store", "add", "--file", "absent.toml"], "absent.toml"),
    ] {
        let (text, code) = lake.text(words);
        assert_eq!(code, 2, "{words:?}: {text}");
        assert!(text.contains(named), "{named} in {text}");
    }
}

#[test]
fn a_definition_is_checked_against_the_one_in_force() {
    let lake = Lake::new(&[]);
    let mut dataset = ventas();
    let write = |dataset: &ribera_storage::dataset::DatasetDefinition| {
        std::fs::write(lake.path("d.toml"), dataset.to_toml().unwrap()).unwrap();
    };
    write(&dataset);
    assert_eq!(lake.json(&["dataset", "check", "d.toml"]).0["change"], "none");
    let mut column = dataset.column("cliente_id").unwrap().clone();
    column.name = "caja".into();
    dataset.columns.push(column);
    dataset.version = 2;
    write(&dataset);
    assert_eq!(lake.json(&["dataset", "check", "d.toml"]).0["change"], "columns");
    assert_eq!(lake.json(&["dataset", "publish", "d.toml"]).0["changed"], true);
    assert_eq!(lake.json(&["tables", "ventas"]).0["tables"][0]["columns"].as_array().unwrap().len(), 15);

    dataset.columns.retain(|column| column.name != "descuento");
    write(&dataset);
    let (text, code) = lake.text(&["dataset", "check", "d.toml"]);
    assert_eq!(code, 2);
    assert!(text.contains("descuento"), "{text}");
    std::fs::write(lake.path("d.toml"), "name = \"x\"\ncolour = 1\n").unwrap();
    let (text, code) = lake.text(&["dataset", "check", "d.toml"]);
    assert_eq!(code, 2);
    assert!(text.contains("d.toml"), "{text}");
}
