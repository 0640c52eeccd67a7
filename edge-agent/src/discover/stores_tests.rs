use proptest::prelude::*;
use ribera_storage::StoreId;

use super::super::company::{Row, sort};
use super::*;

const SECTION: &str = r#"
[store]
adapter = "caja"
time_zone = "America/Bogota"
[store.source]
user = "lector"
password = "${CLAVE}"
[[server]]
name = "norte"
source = { kind = "firebird", host = "norte", database = "maestro", user = "sysdba", password = "${MAESTRA}", charset = "WIN1252" }
[[server]]
name = "sur"
source = { kind = "firebird", host = "sur", database = "maestro", user = "sysdba", password = "${MAESTRA}" }
"#;

fn row(code: &str, number: &str, year: &str, path: &str) -> Row {
    let text = str::to_owned;
    Row { code: text(code), name: text("Á"), tax_number: text(number), fiscal_year: text(year), path: text(path) }
}

fn planned(servers: &[(&str, Vec<Row>)], known: &Known, silent: &[&str]) -> Plan {
    let servers: Vec<_> = servers.iter().map(|(name, rows)| ((*name).to_owned(), rows.clone())).collect();
    let section: Table = toml::from_str(SECTION).unwrap();
    let written = Written { section: &section, prefix: "c-", unnumbered: false, first_month: 1 };
    plan(&sort(&servers), &written, known, &silent.iter().copied().collect())
}

fn tables(plan: &Plan) -> Vec<Table> {
    plan.stores.iter().map(|store| store.table.clone()).collect()
}

fn kinds(plan: &Plan) -> Vec<(&str, &Kind)> {
    plan.changes.iter().map(|change| (change.store.as_str(), &change.kind)).collect()
}

#[test]
fn a_store_is_reached_as_its_server_is_but_for_database_and_user() {
    let plan = planned(&[("norte", vec![row("Ñu 01", "9-1", "", "C:\\a.fdb")])], &Known::default(), &[]);
    let source = plan.stores[0].table["source"].as_table().unwrap();
    let get = |key: &str| source[key].as_str().unwrap();
    assert_eq!((get("database"), get("user"), get("password")), ("C:\\a.fdb", "lector", "${CLAVE}"));
    assert_eq!((get("host"), get("charset")), ("norte", "WIN1252"));
    let table = &plan.stores[0].table;
    assert_eq!((table["id"].as_str(), table["tenant"].as_str()), (Some("c-nu-01"), Some("91")));
}

#[test]
fn a_tax_number_is_one_store_with_a_database_for_each_fiscal_year() {
    let rows = vec![
        row("9", "11", "2026", "b"),
        row("1", "11", "2025", "a"),
        row("2", "22", "", "c"),
        row("3", "", "2026", "d"),
    ];
    let plan = planned(&[("norte", rows.clone()), ("sur", vec![row("1", "11", "2024", "e")])], &Known::default(), &[]);
    // Named by its oldest year; another server's years are a store of their own.
    assert_eq!(kinds(&plan), [("c-1", &Kind::New), ("c-2", &Kind::New), ("c-1-2", &Kind::New)]);
    let table = &plan.stores[0].table;
    assert_eq!(table["source"]["database"].as_str(), Some("b"));
    let days: Vec<[&str; 3]> = table["databases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| ["from", "to", "database"].map(|key| one[key].as_str().unwrap()))
        .collect();
    assert_eq!(days, [["2025-01-01", "2025-12-31", "a"], ["2026-01-01", "2026-12-31", "b"]]);
    assert_eq!(
        plan.ids.iter().map(|(index, id)| (*index, id.as_str())).collect::<Vec<_>>(),
        [(0, "c-1"), (1, "c-1"), (2, "c-2"), (4, "c-1-2")]
    );
    // The next year is added to the same store.
    let known = Known { written: tables(&plan), by_hand: Vec::new() };
    let more = [rows, vec![row("1", "1-1", "2027", "f")]].concat();
    let plan = planned(&[("norte", more)], &known, &["sur"]);
    let changed = Kind::Changed { keys: vec!["databases".to_owned(), "source.database".to_owned()] };
    assert_eq!(kinds(&plan), [("c-1", &changed), ("c-2", &Kind::Same), ("c-1-2", &Kind::Unknown)]);
}

#[test]
fn a_second_run_says_what_is_new_gone_changed_and_unknown() {
    let first = planned(
        &[("norte", vec![row("1", "11", "", "a"), row("2", "22", "", "b")]), ("sur", vec![row("1", "33", "", "c")])],
        &Known::default(),
        &[],
    );
    assert_eq!(kinds(&first), [("c-1", &Kind::New), ("c-2", &Kind::New), ("c-1-2", &Kind::New)]);
    let mut written = tables(&first);
    // What a person added stays; what a person changed is written again.
    written[0].insert("opened".to_owned(), Value::String("2026-01-01".to_owned()));
    written[0].insert("time_zone".to_owned(), Value::String("UTC".to_owned()));
    let known = Known { written, by_hand: Vec::new() };
    let rows = vec![row("1", "11", "", "a"), row("4", "44", "", "d")];
    let second = planned(&[("norte", rows.clone())], &known, &["sur"]);
    let changed = Kind::Changed { keys: vec!["time_zone".to_owned()] };
    assert_eq!(
        kinds(&second),
        [("c-1", &changed), ("c-4", &Kind::New), ("c-2", &Kind::Gone), ("c-1-2", &Kind::Unknown)]
    );
    assert_eq!(second.stores[0].table["opened"].as_str(), Some("2026-01-01"));
    let known = Known { written: tables(&second), by_hand: Vec::new() };
    let third = planned(&[("norte", rows)], &known, &["sur"]);
    assert_eq!(
        third.stores[..2].iter().map(|store| &store.table).collect::<Vec<_>>(),
        tables(&second)[..2].iter().collect::<Vec<_>>()
    );
    assert!(third.changes[..2].iter().all(|change| change.kind == Kind::Same));
}

#[test]
fn a_store_that_a_person_wrote_is_not_written_twice() {
    let by_hand = toml::from_str(
        "id = \"mia\"\nadapter = \"x\"\nsource = { kind = \"firebird\", host = \"NORTE\", port = 3050, database = \"a\", user = \"u\" }",
    );
    let known = Known { by_hand: vec![by_hand.unwrap()], written: Vec::new() };
    let plan = planned(&[("norte", vec![row("1", "11", "", "a"), row("mia", "22", "", "b")])], &known, &[]);
    assert_eq!(kinds(&plan), [("mia", &Kind::ByHand), ("c-mia", &Kind::New)]);
    assert_eq!(plan.stores.len(), 1);
}

/// The databases of each store, with its id.
fn read(plan: &Plan) -> Vec<(String, Vec<String>)> {
    let names = |table: &Table| databases(table).into_iter().map(str::to_owned).collect();
    plan.stores.iter().map(|store| (id(&store.table).unwrap(), names(&store.table))).collect()
}

fn known(plan: &Plan) -> Known {
    Known { written: tables(plan), by_hand: Vec::new() }
}

#[test]
fn a_company_whose_server_is_silent_is_not_written_again_from_a_later_server() {
    let (norte, sur) = (vec![row("1", "11", "", "a")], vec![row("9", "1-1", "", "copia")]);
    let first = planned(&[("norte", norte.clone()), ("sur", sur.clone())], &Known::default(), &[]);
    assert_eq!(read(&first), [("c-1".to_owned(), vec!["a".to_owned()])]);
    let second = planned(&[("norte", Vec::new()), ("sur", sur.clone())], &known(&first), &["norte"]);
    assert_eq!(kinds(&second), [("c-1", &Kind::Unknown)]);
    assert_eq!(second.held, BTreeMap::from([(0, "c-1".to_owned())]));
    assert_eq!(read(&second), read(&first));
    let third = planned(&[("norte", norte), ("sur", sur)], &known(&second), &[]);
    assert_eq!((kinds(&third), read(&third)), (vec![("c-1", &Kind::Same)], read(&first)));
}

#[test]
fn of_a_company_on_two_servers_only_the_years_that_no_silent_server_has_are_written() {
    let norte = vec![row("1", "11", "2025", "n25"), row("1", "11", "2026", "n26")];
    let sur = vec![row("1", "11", "2024", "s24"), row("1", "11", "2026", "s26")];
    let first = planned(&[("norte", norte), ("sur", sur.clone())], &Known::default(), &[]);
    let more = [sur, vec![row("1", "11", "2027", "s27")]].concat();
    let second = planned(&[("norte", Vec::new()), ("sur", more)], &known(&first), &["norte"]);
    let expected = [("c-1-2", vec!["s24", "s27"]), ("c-1", vec!["n25", "n26"])];
    let owned = |(id, names): (&str, Vec<&str>)| (id.to_owned(), names.into_iter().map(str::to_owned).collect());
    assert_eq!(read(&second), expected.map(owned));
    assert_eq!(second.held, BTreeMap::from([(1, "c-1".to_owned())]));
}

#[test]
fn a_company_that_moved_to_another_server_stays_one_store() {
    let first = planned(&[("norte", vec![row("1", "11", "", "a")])], &Known::default(), &[]);
    let second = planned(&[("norte", Vec::new()), ("sur", vec![row("7", "11", "", "b")])], &known(&first), &[]);
    assert_eq!(read(&second), [("c-1".to_owned(), vec!["b".to_owned()])]);
    let keys = ["source.charset", "source.database", "source.host"].map(str::to_owned).to_vec();
    assert_eq!(kinds(&second), [("c-1", &Kind::Changed { keys })]);
}

#[test]
fn a_company_that_a_person_wrote_with_its_tax_number_is_not_written_from_a_server() {
    let by_hand: Table = toml::from_str(
        "id = \"mia\"\ntenant = \"1.1\"\nadapter = \"x\"\n\
         source = { kind = \"firebird\", host = \"otro\", database = \"a\", user = \"u\" }",
    )
    .unwrap();
    let known = Known { by_hand: vec![by_hand], written: Vec::new() };
    let plan = planned(&[("norte", vec![row("1", "11", "2026", "a"), row("2", "22", "", "b")])], &known, &[]);
    assert_eq!(kinds(&plan), [("c-2", &Kind::New)]);
    assert_eq!(plan.held, BTreeMap::from([(0, "mia".to_owned())]));
}

proptest! {
    /// Whatever servers are silent, in whatever order they are asked, and whatever moves: no day of a company is read twice.
    #[test]
    fn no_day_of_a_company_is_read_by_two_stores_after_any_runs(
        runs in proptest::collection::vec(
            (proptest::collection::vec((0..2_usize, 1..4_u32, 0..3_usize), 0..8), 0..4_usize, any::<bool>()), 1..6),
    ) {
        let mut before = Known::default();
        for (companies, silent, turned) in runs {
            let mut servers = [("norte", Vec::new()), ("sur", Vec::new())];
            for (server, number, year) in companies {
                let year = ["", "2025", "2026"][year];
                let path = format!("{server}-{number}-{year}");
                servers[server].1.push(row(&number.to_string(), &format!("1{number}"), year, &path));
            }
            let silent: Vec<&str> = [(1, "norte"), (2, "sur")].iter().filter(|(bit, _)| silent & bit != 0).map(|(_, name)| *name).collect();
            for server in &mut servers {
                if silent.contains(&server.0) {
                    server.1.clear();
                }
            }
            if turned {
                servers.reverse();
            }
            let plan = planned(&servers, &before, &silent);
            for (index, one) in plan.stores.iter().enumerate() {
                for other in &plan.stores[..index] {
                    prop_assert!(!same_days(&one.table, &other.table), "{:?}", plan);
                }
            }
            before = known(&plan);
        }
    }
    #[test]
    fn ids_are_valid_and_unique_and_every_run_after_the_first_changes_nothing(
        codes in proptest::collection::vec("[ -~ñÁ€]{1,40}", 1..30),
    ) {
        let rows: Vec<Row> = codes
            .iter()
            .enumerate()
            .map(|(index, code)| row(code, &format!("9{index}"), ["", "2026"][index % 2], &format!("d{index}")))
            .collect();
        let first = planned(&[("norte", rows.clone())], &Known::default(), &[]);
        let ids: BTreeSet<&str> = first.stores.iter().filter_map(|store| store.table["id"].as_str()).collect();
        prop_assert_eq!(ids.len(), rows.len());
        for id in &ids {
            prop_assert!(id.parse::<StoreId>().is_ok(), "{}", id);
        }
        let known = Known { written: tables(&first), by_hand: Vec::new() };
        let mut turned = rows;
        turned.reverse();
        let second = planned(&[("norte", turned)], &known, &[]);
        prop_assert!(second.changes.iter().all(|change| change.kind == Kind::Same));
        let again: BTreeSet<&str> = second.stores.iter().filter_map(|store| store.table["id"].as_str()).collect();
        prop_assert_eq!(again, ids);
    }
}
