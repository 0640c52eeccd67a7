//! `ribera quarantine replay` decodes nothing itself: the component does, within the limits of the settings.

use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{Lake, january, ventas};

const BATCH: &str = "s1/ventas/000000-0000000001";

/// A batch that a low limit put into quarantine.
fn quarantined(rows: i32) -> Lake {
    let lake = Lake::new(&["s1"]);
    let mut days = january(1, 2);
    days[0].rows = rows;
    lake.deliver(&ventas(), BATCH, &days, |file| file);
    let low = settings(&lake, "[ingest.limits]\nrows_max = 1");
    assert!(run(&lake, &["sweep", "--settings", &low]).status.success());
    assert_eq!(lake.json(&["quarantine", "list"]).0["entries"][0]["record"]["reason"], "limit_exceeded");
    lake
}

fn settings(lake: &Lake, toml: &str) -> String {
    let path = lake.path("host.toml");
    std::fs::write(&path, toml).unwrap();
    path.display().to_string()
}

fn run(lake: &Lake, words: &[&str]) -> Output {
    lake.run(words)
}

fn replay(lake: &Lake, more: &[&str]) -> (Value, Option<i32>) {
    let output = run(lake, &[&["quarantine", "replay", BATCH, "--json"], more].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.code())
}

#[test]
fn a_replay_within_the_limits_of_the_settings_commits_the_batch() {
    let lake = quarantined(10);
    let (report, code) = replay(&lake, &[]);
    assert_eq!((code, report["outcomes"][0]["state"].as_str()), (Some(0), Some("committed")), "{report}");
    assert_eq!(lake.value("SELECT count(*) FROM ventas"), 20);
}

#[test]
fn a_replay_keeps_to_the_limits_of_the_settings() {
    let lake = quarantined(10);
    for (limit, expected) in
        [("rows_max = 19", "quarantined"), ("file_bytes_max = 100", "quarantined"), ("rows_max = 20", "committed")]
    {
        let file = settings(&lake, &format!("[ingest.limits]\n{limit}"));
        let (report, code) = replay(&lake, &["--settings", &file]);
        assert_eq!(report["outcomes"][0]["state"], expected, "{limit}: {report}");
        assert_eq!(code, Some(i32::from(expected != "committed")), "{limit}");
    }
}

#[test]
fn a_replay_that_breaks_its_instance_is_reported_and_the_batch_is_kept() {
    let lake = quarantined(700_000);
    let low = settings(&lake, "[call]\nmemory_mib_max = 64");
    let (report, code) = replay(&lake, &["--settings", &low]);
    assert_eq!(code, Some(1), "the process ended by itself: {report}");
    let outcome = &report["outcomes"][0];
    assert_eq!(
        (outcome["state"].as_str(), outcome["batch"]["sequence"].as_u64()),
        (Some("failed"), Some(1)),
        "{report}"
    );
    assert!(outcome["message"].as_str().unwrap().contains("memory limit"), "{report}");
    assert_eq!(lake.files("inbox").len(), 1, "the sweep tries it again");
    assert!(run(&lake, &["sweep"]).status.success());
    assert_eq!(lake.value("SELECT count(*) FROM ventas"), 700_010);
}

#[test]
fn a_replay_that_breaks_its_instance_spares_the_batches_beside_it() {
    let lake = quarantined(700_000);
    lake.deliver(&ventas(), "s1/ventas/000000-0000000002", &january(5, 5), |file| file[..50].to_vec());
    assert!(run(&lake, &["sweep"]).status.success());
    let low = settings(&lake, "[call]\nmemory_mib_max = 64");
    let output = run(&lake, &["quarantine", "replay", "--all", "--json", "--settings", &low]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let states: Vec<&str> =
        report["outcomes"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failed", "quarantined"], "each had a call of its own: {report}");
}

#[test]
fn a_replay_offers_no_way_around_the_component() {
    let lake = quarantined(10);
    assert_eq!(run(&lake, &["quarantine", "replay", BATCH, "--native"]).status.code(), Some(2));
    let empty = TempDir::new().unwrap();
    let output = run(&lake, &["quarantine", "replay", BATCH, "--components", empty.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(lake.json(&["quarantine", "list"]).0["total"], 1, "nothing was touched");
    assert!(lake.files("inbox").is_empty());
}
