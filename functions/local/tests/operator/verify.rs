//! `ribera verify` on lakes that were damaged in one place.

use std::path::PathBuf;

use serde_json::Value;

use super::fixture::{Lake, january};

fn lake() -> Lake {
    let lake = Lake::new(&["s1", "s2"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 5));
    lake.batch("s2/ventas/000000-0000000001", &january(1, 5));
    lake
}

/// The kinds of findings, without repeats, and the exit code.
fn findings(lake: &Lake) -> (Vec<String>, i32) {
    let (report, code) = lake.json(&["verify"]);
    let mut kinds: Vec<String> = report["tables"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|table| table["findings"].as_array().unwrap())
        .map(|finding| finding["kind"].as_str().unwrap().to_owned())
        .collect();
    kinds.dedup();
    (kinds, code)
}

fn data_file(lake: &Lake) -> PathBuf {
    lake.files("lake")
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .unwrap()
}

#[test]
fn an_intact_lake_is_sound_and_counted_whole() {
    let lake = lake();
    let (report, code) = lake.json(&["verify"]);
    assert_eq!((code, &report["sound"]), (0, &Value::Bool(true)), "{report}");
    let table = &report["tables"][0];
    assert_eq!(
        (table["files"].as_u64(), table["rows"].as_u64(), table["units"].as_u64()),
        (Some(2), Some(100), Some(10))
    );
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    for place in [8, 300, usize::MAX] {
        let lake = lake();
        let path = data_file(&lake);
        let mut bytes = std::fs::read(&path).unwrap();
        let index = place.min(bytes.len() - 20);
        bytes[index] ^= 0x20;
        std::fs::write(&path, bytes).unwrap();
        let (kinds, code) = findings(&lake);
        assert_eq!(code, 1);
        assert!(kinds.contains(&"hash_differs".to_owned()), "{kinds:?}");
    }
}

#[test]
fn a_missing_and_a_cut_file_are_found() {
    let lake = lake();
    std::fs::remove_file(data_file(&lake)).unwrap();
    assert_eq!(findings(&lake), (vec!["file_missing".to_owned()], 1));

    let lake = self::lake();
    let path = data_file(&lake);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let (kinds, code) = findings(&lake);
    assert_eq!(code, 1);
    assert_eq!(kinds, ["size_differs", "hash_differs", "file_unreadable"]);
}

#[test]
fn statistics_and_facts_that_are_not_the_files_are_found() {
    let cases: [(&str, &str, &str); 5] = [
        ("\\\"fecha\\\":\\\"2026-01-01\\\"", "\\\"fecha\\\":\\\"2026-01-02\\\"", "statistics_differ"),
        ("\\\"store_id\\\":\\\"s1\\\"", "\\\"store_id\\\":\\\"s0\\\"", "statistics_differ"),
        ("\\\"cliente_id\\\":50", "\\\"cliente_id\\\":49", "statistics_differ"),
        ("\\\"numRecords\\\":50", "\\\"numRecords\\\":51", "rows_differ"),
        (";10;10.000;10.45", ";10;10.000;10.46", "facts_differ"),
    ];
    for (from, to, kind) in cases {
        let lake = lake();
        lake.edit_log("s1", |line| line.replace(from, to));
        let (kinds, code) = findings(&lake);
        assert_eq!(code, 1, "{kind}");
        assert!(kinds.contains(&kind.to_owned()), "{kind}: {kinds:?}");
    }
}
