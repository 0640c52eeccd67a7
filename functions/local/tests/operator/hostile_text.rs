//! What a store or a row says reaches no terminal as a command to it.

use ribera_core::ingest::Outcome;
use ribera_storage::object::ObjectPath;
use ribera_storage::text::is_control;
use ribera_storage::{BatchId, ObjectStore as _, paths};

use super::fixture::{Lake, january, ventas};

/// Clears the screen, sets a title, hides text, turns its direction, forges a line.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}8m\u{7f}\u{202e}\u{2066}\u{200f}\u{61c}\r\u{8}\nReason: none\t";

const VERBS: [&[&str]; 9] = [
    &["quarantine", "list"],
    &["quarantine", "show", "s1/ventas/000000-0000000001"],
    &["quarantine", "show", "s1/ventas/000000-0000000002"],
    &["runs"],
    &["coverage", "--summary"],
    &["coverage", "--store", "s2"],
    &["store", "list"],
    &["sql", "SELECT store_id, chr(27) || '[2J' || chr(8238) || chr(10) || 'x' AS t FROM ventas"],
    &["sql", "SELECT 1 AS \"a\u{1b}[2J\u{202e}\""],
];

fn hostile_lake() -> Lake {
    let lake = Lake::new(&["s1"]);
    let json = serde_json::to_string(HOSTILE).unwrap();
    let name = HOSTILE.replace(['\u{7}', '\u{8}'], "").escape_unicode().to_string();
    let name = name
        .replace("\\u{", "\\U")
        .split("\\U")
        .skip(1)
        .fold(String::new(), |all, code| format!("{all}\\U{:0>8}", code.trim_end_matches('}')));
    lake.store(&format!(
        "id = \"s2\"\nname = \"{name}\"\ntime_zone = \"America/New_York\"\nopened = \"2026-01-01\"\nclosed = \"2026-01-31\""
    ));
    lake.batch("s1/ventas/000000-0000000003", &january(1, 1));
    put(&lake, "s1/ventas/000000-0000000001", format!("{{{json}: 1, \"contract\": 1}}"));
    put(&lake, "s1/ventas/000000-0000000002", HOSTILE.to_owned());
    let sums = lake.upload(&ventas(), "s1/ventas/000000-0000000004", &january(2, 2), |file| file[..9].to_vec());
    assert!(matches!(sums, Outcome::Quarantined { .. }));
    lake
}

fn put(lake: &Lake, batch: &str, manifest: String) {
    let path: ObjectPath = paths::inbox(&batch.parse::<BatchId>().unwrap()).unwrap();
    lake.wait(lake.objects.put(&path, manifest.into_bytes().into())).unwrap();
}

fn assert_harmless(words: &[&str], bytes: &[u8]) {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let bad: Vec<char> = text.chars().filter(|letter| is_control(*letter) && *letter != '\n').collect();
    assert!(bad.is_empty(), "{words:?}: {bad:?} in {text:?}");
    assert!(
        !text.lines().any(|line| line.trim_start().starts_with("Reason: none")),
        "{words:?}: a forged line: {text}"
    );
}

#[test]
fn a_hostile_manifest_reaches_no_terminal_through_any_command() {
    let lake = hostile_lake();
    let swept = lake.run(&["sweep"]);
    assert_harmless(&["sweep"], &swept.stdout);
    assert_harmless(&["sweep"], &swept.stderr);
    assert_eq!(lake.json(&["quarantine", "list"]).0["total"], 3);
    for words in VERBS {
        for json in [false, true] {
            let words = if json { [words, &["--json"]].concat() } else { words.to_vec() };
            let output = lake.run(&words);
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
            assert_harmless(&words, &output.stdout);
            assert_harmless(&words, &output.stderr);
            if json {
                serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
            }
        }
    }
    for json in [&[][..], &["--json"]] {
        let words = [&["quarantine", "replay", "--all"], json].concat();
        let output = lake.run(&words);
        assert_eq!(output.status.code(), Some(1));
        assert_harmless(&words, &output.stdout);
        assert_harmless(&words, &output.stderr);
    }
}

#[test]
fn what_is_hidden_elsewhere_is_visible_here() {
    let lake = hostile_lake();
    lake.run(&["sweep"]);
    let (text, _) = lake.text(&["quarantine", "show", "s1/ventas/000000-0000000001"]);
    assert!(text.contains("manifest_invalid") && text.contains(r"\u{1b}[2J") && text.contains(r"\u{202e}"), "{text}");
    let (text, _) = lake.text(&["quarantine", "show", "s1/ventas/000000-0000000002"]);
    assert!(text.contains(r#""x\u{1b}[2J"#) && text.contains(r"\nReason: none\t"), "{text}");
}

#[test]
fn errors_and_csv_to_a_file_are_treated_each_in_its_way() {
    let lake = hostile_lake();
    for json in [&[][..], &["--json"]] {
        let output = lake.run(&[&["sql", "SELECT * FROM \"a\u{1b}[2J\u{202e}\""], json].concat());
        assert_eq!(output.status.code(), Some(2));
        assert_harmless(&["sql"], &output.stderr);
    }
    // A file gets the values as they are.
    let output = lake.run(&["sql", "--csv", "SELECT chr(27) || chr(8238) AS t"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "t\n\u{1b}\u{202e}\n");
}
