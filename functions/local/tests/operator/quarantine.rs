//! `ribera quarantine`.

use ribera_core::ingest::Outcome;

use super::fixture::{Lake, january, ventas};

#[test]
fn a_refused_batch_is_listed_shown_and_replayed_once_its_file_is_whole() {
    let lake = Lake::new(&["s1"]);
    let id = "s1/ventas/000000-0000000001";
    let whole = std::cell::RefCell::new(Vec::new());
    let outcome = lake.upload(&ventas(), id, &january(1, 2), |file| {
        whole.replace(file.clone());
        file[..file.len() / 2].to_vec()
    });
    assert!(matches!(outcome, Outcome::Quarantined { .. }), "{outcome:?}");

    let (list, _) = lake.json(&["quarantine", "list"]);
    assert_eq!(list["total"], 1);
    assert_eq!(list["entries"][0]["record"]["reason"], "file_hash_mismatch");
    let (text, _) = lake.text(&["quarantine", "show", id]);
    assert!(text.contains("file_hash_mismatch") && text.contains("journal_id"), "{text}");
    assert_eq!(lake.json(&["coverage", "--summary"]).0["totals"]["days"]["partial"], 2, "partial while in quarantine");

    let (report, code) = lake.json(&["quarantine", "replay", id]);
    assert_eq!((code, report["outcomes"][0]["state"].as_str()), (1, Some("quarantined")), "still damaged");
    std::fs::write(lake.files("landing").remove(0), whole.take()).unwrap();
    let (report, code) = lake.json(&["quarantine", "replay", "--all", "--store", "s1"]);
    assert_eq!((code, report["outcomes"][0]["state"].as_str()), (0, Some("committed")));
    assert_eq!(lake.json(&["quarantine", "list"]).0["total"], 0);
    assert_eq!(lake.value("SELECT count(*) FROM ventas"), 20);
    assert_eq!(lake.run(&["quarantine", "show", id]).status.code(), Some(2));
}
