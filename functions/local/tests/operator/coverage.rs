//! `ribera coverage`, `recover` and `runs`.

use jiff::civil::date;
use serde_json::json;

use super::fixture::{Day, Lake, january};

/// s1 complete; s2 without three days, one not proven, sundays off; s3 opened on the 20th; s4
/// inactive.
fn chain() -> Lake {
    let lake = Lake::new(&["s1"]);
    lake.batch("s1/ventas/000000-0000000001", &january(1, 31));
    lake.store(
        "id = \"s2\"\nname = \"Dos\"\ntime_zone = \"America/New_York\"\nopened = \"2026-01-01\"\n\
         closed = \"2026-01-31\"\nrest_days = [\"sunday\"]\nholidays = [\"2026-01-06\"]",
    );
    let sunday_or_holiday = |day: &Day| [4, 6, 11, 18, 25].contains(&day.date.day());
    let mut days: Vec<Day> = [january(1, 12), january(16, 31)].concat();
    days.retain(|day| !sunday_or_holiday(day));
    days.iter_mut().filter(|day| day.date.day() == 20).for_each(|day| day.proven = false);
    lake.batch("s2/ventas/000000-0000000001", &days);
    lake.store(
        "id = \"s3\"\nname = \"Tres\"\ntime_zone = \"America/New_York\"\nopened = \"2026-01-20\"\nclosed = \"2026-01-31\"",
    );
    lake.batch("s3/ventas/000000-0000000001", &january(20, 31));
    lake.store("id = \"s4\"\nname = \"Cuatro\"\ntime_zone = \"UTC\"\nopened = \"2026-01-01\"\nactive = false");
    lake
}

#[test]
fn the_summary_counts_expected_due_days_and_names_what_is_missing() {
    let lake = chain();
    let (summary, code) = lake.json(&["coverage", "--summary"]);
    assert_eq!(code, 0);
    let stores = summary["stores"].as_array().unwrap();
    assert_eq!(stores.len(), 3, "an inactive store stands outside");
    let [s1, s2, s3] = [&stores[0], &stores[1], &stores[2]];
    assert_eq!((&s1["rows"], &s1["day_percent"], &s1["light"]), (&json!(310), &json!(100.0), &json!("green")));
    assert_eq!(s1["missing_months"], json!([]));
    // 31 days, 4 sundays and a holiday off: 26 due, 3 missing, 1 partial.
    assert_eq!(s2["days"], json!({"complete": 22, "partial": 1, "missing": 3, "pending": 0, "not_expected": 5}));
    assert_eq!((&s2["day_percent"], &s2["light"]), (&json!(84.61), &json!("yellow")));
    assert_eq!((&s2["missing_months"], &s2["month_percent"]), (&json!(["2026-01"]), &json!(0.0)));
    assert_eq!(
        (&s3["since"], &s3["day_percent"], &s3["light"]),
        (&json!("2026-01-20"), &json!(100.0), &json!("green"))
    );
    let totals = &summary["totals"];
    assert_eq!(totals["rows"], 310 + 230 + 120);
    assert_eq!((&totals["stores_active"], &totals["stores_configured"]), (&json!(3), &json!(4)));

    let (text, _) = lake.text(&["coverage", "--summary"]);
    for words in ["84.61 %", "January", "2026-01-20", "3 active of 4 configured", "2 green, 1 yellow, 0 red"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(lake.text(&["--lang", "es", "coverage", "--summary"]).0.contains("enero"));
}

#[test]
fn the_calendar_draws_a_mark_for_each_day() {
    let lake = chain();
    let (text, _) = lake.text(&["coverage", "--store", "s2"]);
    let line = text.lines().find(|line| line.starts_with("2026-01")).unwrap();
    assert!(line.contains("■■■·■·■■■■·■×××■■·■◧■■■■·■■■■■■"), "{text}");
    assert!(text.contains("× missing"));
    let (value, _) = lake.json(&["coverage", "--store", "s2", "--from", "2026-01-12", "--to", "2026-01-20"]);
    assert_eq!(value["stores"][0]["days"], "CMMMCC.CP");
    assert_eq!(lake.json(&["coverage"]).0["stores"].as_array().unwrap().len(), 3);
    assert_eq!(lake.json(&["coverage", "--all"]).0["stores"].as_array().unwrap().len(), 4);
    assert_eq!(lake.run(&["coverage", "--store", "nobody"]).status.code(), Some(2));
}

#[test]
fn the_recovery_plan_is_exactly_the_missing_and_partial_days() {
    let lake = chain();
    let (plan, code) = lake.json(&["recover"]);
    assert_eq!(code, 1, "there is something to recover");
    let commands: Vec<&str> =
        plan["steps"].as_array().unwrap().iter().map(|step| step["command"].as_str().unwrap()).collect();
    assert_eq!(
        commands,
        [
            "ribera-agent extract --stores s2 --datasets ventas --from 2026-01-13 --to 2026-01-15 --force",
            "ribera-agent extract --stores s2 --datasets ventas --from 2026-01-20 --to 2026-01-20 --force",
        ]
    );
    // What the plan asks for, done: nothing is left.
    lake.batch("s2/ventas/000000-0000000002", &january(13, 15));
    lake.batch("s2/ventas/000000-0000000003", &[Day::new(date(2026, 1, 20), 10)]);
    let (plan, code) = lake.json(&["recover"]);
    assert_eq!((&plan["steps"], code), (&json!([]), 0));
}

#[test]
fn the_last_batches_are_listed_newest_first() {
    let lake = chain();
    let (runs, _) = lake.json(&["runs", "--limit", "2"]);
    let batches: Vec<&str> =
        runs["runs"].as_array().unwrap().iter().map(|run| run["batch"]["store"].as_str().unwrap()).collect();
    assert_eq!(batches, ["s3", "s2"]);
    let (of_store, _) = lake.json(&["runs", "--store", "s1"]);
    assert_eq!(of_store["runs"][0]["rows"], 310);
    assert!(lake.text(&["runs"]).0.contains("in the lake, version"));
}
