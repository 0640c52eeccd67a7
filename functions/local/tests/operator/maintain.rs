//! `ribera maintain` and `rebuild`.

use jiff::civil::date;
use serde_json::{Value, json};

use super::fixture::{Day, Lake, january, ventas};

/// Twelve batches of a day each, and one of them sent again.
fn many_files() -> Lake {
    let lake = Lake::new(&["s1", "s2"]);
    for day in 1..=12_i8 {
        lake.batch(&format!("s1/ventas/000000-{:010}", day), &january(day, day));
    }
    lake.batch("s1/ventas/000000-0000000013", &[Day { extra: 250, ..Day::new(date(2026, 1, 5), 7) }]);
    lake.batch("s2/ventas/000000-0000000001", &january(1, 3));
    lake
}

fn content(lake: &Lake) -> Value {
    let sql = "SELECT store_id, fecha, count(*) AS n, sum(cantidad) AS c, sum(total) AS t, \
               sum(hash(COLUMNS(* EXCLUDE (store_id, month)))::HUGEINT)::VARCHAR FROM ventas GROUP BY ALL ORDER BY ALL";
    lake.json(&["sql", sql]).0["rows"].clone()
}

#[test]
fn a_merge_keeps_every_value_and_every_store_days_sums() {
    let lake = many_files();
    let before = content(&lake);
    let version = lake.json(&["tables", "ventas"]).0["tables"][0]["version"].as_u64().unwrap();

    let (plan, _) = lake.json(&["maintain", "--dry-run"]);
    assert_eq!(plan["tables"][0]["files_before"], 13);
    assert_eq!(
        lake.json(&["tables", "ventas"]).0["tables"][0]["version"].as_u64(),
        Some(version),
        "a dry run commits nothing"
    );

    let (done, code) = lake.json(&["maintain"]);
    assert_eq!(code, 0);
    let table = &done["tables"][0];
    assert_eq!((&table["files_before"], &table["files_after"]), (&json!(13), &json!(1)), "{table}");
    assert_eq!((&table["rows_merged"], &table["units_proved"]), (&json!(147), &json!(15)));
    assert!(table["checkpoint"].is_u64());
    assert_eq!(content(&lake), before);
    assert_eq!(lake.json(&["verify"]).1, 0);
    assert_eq!(lake.json(&["coverage", "--summary"]).0["totals"]["days"]["complete"], 15);

    let (old, _) = lake.json(&["sql", "--version", &version.to_string(), "SELECT count(*) AS n FROM ventas"]);
    assert_eq!(old["rows"][0]["n"], 147);
    let (again, _) = lake.json(&["maintain"]);
    assert_eq!((&again["tables"][0]["groups"], &again["tables"][0]["files_after"]), (&json!(0), &json!(1)));
}

#[test]
fn a_batch_sent_again_after_a_merge_still_changes_nothing() {
    let lake = many_files();
    lake.json(&["maintain"]);
    let before = content(&lake);
    // An older position of a day that a newer batch won.
    let outcome = lake.upload(&ventas(), "s1/ventas/000000-0000000000", &january(5, 5), |file| file);
    assert!(matches!(outcome, ribera_core::ingest::Outcome::Superseded), "{outcome:?}");
    assert_eq!(content(&lake), before);
}

/// One log entry with a file for each of the first days of January and each store.
fn files_in_one_entry(stores: &[&str], days: i8) -> Lake {
    let lake = Lake::new(stores);
    for day in 1..=days {
        for store in stores {
            lake.deliver(&ventas(), &format!("{store}/ventas/000000-{day:010}"), &january(day, day), |file| file);
        }
    }
    lake.sweep();
    lake
}

/// The line with another sum in the facts of 3 January.
fn with_another_sum(line: &str) -> String {
    let parts = line.split('|').map(|part| match part.starts_with("2026-01-03;") {
        true => part.replace(";10.45", ";10.44"),
        false => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("|")
}

#[test]
fn a_merge_leaves_files_alone_that_are_not_what_their_facts_say() {
    let lake = files_in_one_entry(&["s1"], 4);
    let before = content(&lake);
    lake.edit_log("s1", with_another_sum);
    let (text, code) = lake.text(&["maintain"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("2026-01-03") && text.contains("ribera verify"), "{text}");
    assert_eq!(lake.json(&["tables", "ventas"]).0["tables"][0]["files"], 2, "the three others are merged");
    assert_eq!(content(&lake), before);
}

#[test]
fn a_file_that_cannot_be_proven_is_named_and_those_of_all_stores_are_merged_without_it() {
    let lake = files_in_one_entry(&["s1", "s2"], 3);
    let before = content(&lake);
    lake.edit_log("s1", with_another_sum);
    let (done, code) = lake.json(&["maintain"]);
    let table = &done["tables"][0];
    assert_eq!((code, &table["files_before"], &table["files_after"]), (1, &json!(6), &json!(2)), "{table}");
    let failures = table["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{table}");
    for words in ["2026-01-03", "ribera verify"] {
        assert!(failures[0].as_str().unwrap().contains(words), "{words} in {table}");
    }
    assert!(table["checkpoint"].is_u64(), "the table is kept in shape all the same: {table}");
    assert_eq!(content(&lake), before);
    let (text, code) = lake.text(&["--lang", "es", "maintain"]);
    assert!(code == 1 && text.contains("sin juntar"), "{text}");
}

#[test]
fn ledger_and_acks_are_made_again_from_the_log_and_the_quarantine() {
    let lake = many_files();
    let refused = lake.upload(&ventas(), "s2/ventas/000000-0000000002", &january(9, 9), |mut file| {
        file.truncate(100);
        file
    });
    assert!(matches!(refused, ribera_core::ingest::Outcome::Quarantined { .. }));
    let outcomes = |lake: &Lake| {
        let acks = lake.files("acks").into_iter().map(|path| {
            let ack: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            (ack["batch"].clone(), ack["outcome"]["state"].clone(), ack["manifest_sha256"].clone())
        });
        acks.collect::<Vec<_>>()
    };
    let before = outcomes(&lake);
    assert_eq!(before.len(), 15);
    std::fs::remove_dir_all(lake.root().join("acks")).unwrap();
    std::fs::remove_dir_all(lake.root().join("state")).unwrap();
    let (report, code) = lake.json(&["rebuild"]);
    assert_eq!((code, &report["batches"], &report["reopened"]), (0, &json!(15), &json!([])));
    let after = outcomes(&lake);
    assert_eq!(after.len(), before.len());
    for (old, new) in before.iter().zip(&after) {
        // Day 5 was won by a later batch: its first one is now known as superseded only.
        let superseded = new.1 == "superseded" && old.1 == "committed";
        assert!(old == new || (superseded && old.0 == new.0), "{old:?} {new:?}");
    }
    assert_eq!(lake.json(&["runs", "--limit", "100"]).0["runs"].as_array().unwrap().len(), 15);
}

#[test]
fn what_the_lake_lost_goes_back_to_the_inbox_and_a_sweep_takes_it_in_again() {
    let lake = many_files();
    let before = content(&lake);
    std::fs::remove_dir_all(lake.root().join("lake")).unwrap();
    let (report, _) = lake.json(&["rebuild"]);
    assert_eq!(report["reopened"].as_array().unwrap().len(), 14);
    lake.sweep();
    assert_eq!(content(&lake), before);
}
