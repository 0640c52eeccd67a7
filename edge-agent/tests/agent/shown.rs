//! What people read: in one language, with the configuration that was given, with a next step that helps, and as wide
//! as their terminal.

use std::path::Path;
use std::process::{Command, Output};

use crate::cli::{acknowledge, agent, backfill, json, place};
use crate::fixture::CONFIG;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn change(folder: &Path, from: &str, to: &str) {
    let file = folder.join("agent.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    assert!(config.contains(from), "{config}");
    std::fs::write(file, config.replace(from, to)).unwrap();
}

fn till(folder: &Path, sql: &str) {
    rusqlite::Connection::open(folder.join("pos.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn hints_repeat_the_configuration_and_never_lead_back() {
    let place = place();
    let given = place.path().join("agent.toml").display().to_string();
    std::fs::rename(place.path().join("pos.db"), place.path().join("elsewhere.db")).unwrap();
    let once = text(&agent(place.path(), &["once"]));
    assert!(once.contains(&format!("pruebe: ribera-agent --config {given} check --stores s1")), "{once}");
    let check = text(&agent(place.path(), &["check"]));
    assert!(check.contains("falla") && !check.contains("pruebe"), "{check}");
    let checked = json(&agent(place.path(), &["check", "--json"]));
    assert!(checked["checks"].to_string().contains("pos.db") && !checked.to_string().contains("\"hint\""), "{checked}");
    let found = text(&agent(place.path(), &["config", "check"]));
    assert!(found.contains(&format!("siguiente: ribera-agent --config {given} check")), "{found}");
}

#[test]
fn audit_names_the_command_that_helps_and_all_days_that_it_is_for() {
    let place = place();
    let year = ["audit", "--from", "2017-01-01", "--to", "2017-12-31"];
    let unsent = text(&agent(place.path(), &year));
    assert!(unsent.contains("extract --stores s1 --datasets ventas --from 2017-01-02 --to 2017-03-04"), "{unsent}");
    assert_eq!(agent(place.path(), &backfill(&[])).status.code(), Some(0));
    let waiting = text(&agent(place.path(), &year));
    assert!(waiting.contains("once --stores s1 --wait-acks 30") && !waiting.contains("extract"), "{waiting}");
    acknowledge(place.path(), |_| {});
    agent(place.path(), &["once"]);
    let agreed = text(&agent(place.path(), &year));
    assert!(!agreed.contains("pruebe"), "{agreed}");
}

#[test]
fn audit_draws_no_rule_between_the_lines_of_a_day_and_keeps_the_decimals_of_each_sum() {
    let place = place();
    agent(place.path(), &backfill(&[]));
    acknowledge(place.path(), |_| {});
    agent(place.path(), &["once"]);
    till(place.path(), "UPDATE lineas SET centavos = 5420 WHERE ticket = 1; DELETE FROM lineas WHERE ticket = 2");
    let told = text(&agent(place.path(), &["audit", "--from", "2017-01-01", "--to", "2017-03-31"]));
    assert!(told.contains(" 54.20 ") && told.contains(" 0.00 "), "{told}");
    let rules = told.lines().filter(|line| line.starts_with('─')).count();
    assert_eq!(rules, 2, "above and below the table: {told}");
}

#[test]
fn a_table_is_no_wider_than_the_terminal() {
    let place = place();
    let deep = place.path().join("una-carpeta-de-nombre-muy-largo-como-las-hay-en-tiendas-de-verdad/y-otra-dentro");
    std::fs::create_dir_all(&deep).unwrap();
    for name in ["agent.toml", "pos.db"] {
        std::fs::rename(place.path().join(name), deep.join(name)).unwrap();
    }
    let check = |columns: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ribera-agent"));
        command
            .arg("--config")
            .arg(deep.join("agent.toml"))
            .arg("check")
            .env_remove("RIBERA_LANG")
            .env_remove("COLUMNS");
        command.envs(columns.map(|columns| ("COLUMNS", columns)));
        let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
        told.lines().map(|line| line.chars().count()).max().unwrap()
    };
    assert!(check(None) > 90, "in a file or a pipe nothing is cut or broken");
    assert!(check(Some("80")) <= 80);
}

#[test]
fn spanish_is_spanish_in_every_table() {
    let place = place();
    till(
        place.path(),
        "INSERT INTO lineas VALUES (3, 1, '2099-01-01', '10:00:00', 'a', 1, 1), (4, 1, NULL, '1', 'a', 1, 1)",
    );
    let verbs: [&[&str]; 9] = [
        &["config", "check"],
        &["config", "adapters"],
        &["check"],
        &["check", "--quick"],
        &["audit", "--from", "2016-12-01", "--to", "2017-04-30"],
        &["backfill", "--from", "2016-12-01", "--to", "2017-12-31"],
        &["backfill", "--status"],
        &["spool"],
        &["once"],
    ];
    let english = [
        "store",
        "state",
        "check ",
        "detail",
        "source",
        "clock",
        "rows",
        "audited",
        "read",
        "day",
        "days",
        "network",
        "reachable",
        "sent",
        "lake",
        "left out",
        "until",
        "waiting",
        "try",
        "next",
        " at ",
        "ok",
        "fails",
        "before",
    ];
    for verb in verbs {
        let told = text(&agent(place.path(), verb));
        // Commands, paths and keys of the configuration are what they are.
        let lines = told.lines().filter(|line| !line.contains("ribera-agent ") && !line.contains("agent.toml"));
        let told: Vec<&str> = lines.collect();
        for line in &told {
            let words = format!(" {} ", line.replace(place.path().to_str().unwrap(), ""));
            for word in english {
                assert!(!words.contains(&format!(" {} ", word.trim())), "{verb:?}: {word:?} in {line:?}");
            }
        }
        assert!(!told.is_empty(), "{verb:?}");
    }
}

#[test]
fn days_outside_a_stores_life_are_named_and_a_command_without_any_other_ends_with_code_2() {
    let place = place();
    let extract = |from: &str, to: &str| agent(place.path(), &["extract", "--from", from, "--to", to]);
    let some = extract("2016-12-30", "2017-01-02");
    assert_eq!(some.status.code(), Some(0), "{some:?}");
    assert!(
        text(&some).contains("s1 ventas: quedan fuera 2016-12-30 .. 2016-12-31: anteriores a la apertura"),
        "{some:?}"
    );
    for verb in ["extract", "backfill", "audit"] {
        for (from, to, why) in [("2016-12-30", "2016-12-31", "apertura"), ("2017-04-01", "2017-04-02", "cierre")] {
            let none = agent(place.path(), &[verb, "--from", from, "--to", to]);
            assert_eq!(none.status.code(), Some(2), "{verb}: {none:?}");
            assert!(text(&none).contains(why) && text(&none).contains("--from, --to"), "{verb}: {none:?}");
        }
    }
    let file = place.path().join("agent.toml");
    std::fs::write(&file, CONFIG).unwrap();
    let future = json(&agent(place.path(), &["--json", "extract", "--from", "2098-01-01", "--to", "2098-01-02"]));
    assert_eq!(
        (future["exit_code"].as_u64(), future["datasets"][0]["left_out"][0]["why"].as_str()),
        (Some(2), Some("not_begun"))
    );
}

#[test]
fn a_dry_run_finds_a_column_that_does_not_exist() {
    let place = place();
    // Neither summed nor hashed, so that no fingerprint names it.
    change(place.path(), "date = \"fecha\"", "date = \"fecha\"\nrow_hash = false");
    let words = backfill(&["--dry-run"]);
    assert_eq!(agent(place.path(), &words).status.code(), Some(0));
    change(place.path(), "producto_id = \"producto\"", "producto_id = \"articulo\"");
    let missing = agent(place.path(), &words);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(json(&missing)["problems"][0]["message"].as_str().unwrap().contains("articulo"), "{missing:?}");
}

#[test]
fn a_line_of_the_logbook_goes_from_the_first_day_to_the_last_whatever_came_first() {
    let place = place();
    agent(place.path(), &backfill(&[]));
    let book = std::fs::read_to_string(place.path().join("agent/logbook.csv")).unwrap();
    assert!(book.lines().nth(1).unwrap().contains(",2017-01-01,2017-03-31,"), "{book}");
}

#[test]
fn store_and_dataset_are_said_once() {
    let place = place();
    till(place.path(), "UPDATE lineas SET centavos = 'muchos' WHERE ticket = 1");
    let extracted = text(&agent(place.path(), &["extract", "--from", "2017-01-02", "--to", "2017-01-02"]));
    let told = format!("{extracted}{}", text(&agent(place.path(), &["spool"])));
    let problems = told.lines().filter(|line| line.contains("muchos") && !line.contains("ribera_agent::"));
    for line in problems {
        let said = line.matches("ventas").count();
        assert_eq!(said, 1, "{line}");
    }
    assert!(told.contains("muchos"), "{told}");
}

#[test]
fn a_store_whose_newest_fiscal_year_is_over_is_still_logged_in_to() {
    let place = place();
    let days =
        "databases = [{ from = \"2017-01-01\", to = \"2017-12-31\", database = \"pos.db\" }]\nadapter = \"caja\"";
    std::fs::write(place.path().join("agent.toml"), CONFIG.replace("adapter = \"caja\"", days)).unwrap();
    let checked = agent(place.path(), &["check", "--json"]);
    let lines = json(&checked)["checks"].as_array().unwrap().clone();
    let of = |what: &str| -> Vec<(bool, String)> {
        let lines = lines.iter().filter(|line| line["what"] == what);
        lines.map(|line| (line["ok"].as_bool().unwrap(), line["detail"].as_str().unwrap().to_owned())).collect()
    };
    let [missing, tried] = of("source").try_into().unwrap();
    assert!(!missing.0 && missing.1.contains("which database holds"), "{missing:?}");
    assert!(tried.0 && tried.1.contains("pos.db"), "{tried:?}");
    let sales = of("ventas").remove(0);
    assert!(sales.0 && sales.1.contains("2017-03-04"), "{sales:?}");
    assert_eq!(checked.status.code(), Some(3), "a run fails at today's days all the same");
    // One that has closed within it lacks nothing.
    let closed = CONFIG.replace("adapter = \"caja\"", &format!("closed = \"2017-12-31\"\n{days}"));
    std::fs::write(place.path().join("agent.toml"), closed).unwrap();
    assert_eq!(agent(place.path(), &["check"]).status.code(), Some(0));
}

#[test]
fn rows_without_a_date_are_counted_once_however_many_months_are_looked_at() {
    let place = place();
    till(place.path(), "INSERT INTO lineas VALUES (4, 1, NULL, '1', 'a', 1, 1)");
    let told = json(&agent(place.path(), &backfill(&[])));
    assert_eq!(told["datasets"][0]["undated_rows"].as_u64(), Some(1), "{told}");
}
