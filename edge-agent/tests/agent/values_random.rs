//! Random text, numbers and dates in columns of every declared type, on every kind of database: what is sent is what the
//! till holds, and what is not is refused with its row.

use std::collections::BTreeMap;

use jiff::ToSpan;
use jiff::civil::date;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use ribera_agent::run::collect::RunMode;
use ribera_storage::{ExactDecimal, Unit};

use crate::each::{Kind, Place};
use crate::fixture::{World, days, run};
use crate::matrix::show;

/// Rows of a table, one a day: a day is refused alone.
const ROWS: usize = 6;

/// What a declared type takes.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Anything,
    Number,
    Whole,
    Date,
    Moment,
}

fn types(kind: Kind) -> &'static [(&'static str, Class)] {
    use Class::{Anything, Date, Moment, Number, Whole};
    match kind {
        Kind::Sqlite => &[
            ("INTEGER", Anything),
            ("REAL", Anything),
            ("NUMERIC", Anything),
            ("DECIMAL(10,2)", Anything),
            ("TEXT", Anything),
            ("DATE", Anything),
            ("", Anything),
        ],
        Kind::Mariadb => &[
            ("VARCHAR(60)", Anything),
            ("CHAR(60) CHARACTER SET latin1", Anything),
            ("INT", Anything),
            ("BIGINT UNSIGNED ZEROFILL", Anything),
            ("DECIMAL(20,4)", Anything),
            ("DOUBLE", Anything),
            ("DATE", Anything),
            ("DATETIME", Anything),
        ],
        Kind::Postgres => &[
            ("text", Anything),
            ("bigint", Whole),
            ("numeric", Number),
            ("numeric(20,4)", Number),
            ("double precision", Number),
            ("date", Date),
            ("timestamp", Moment),
        ],
        Kind::Firebird => &[
            ("VARCHAR(60)", Anything),
            ("BIGINT", Whole),
            ("NUMERIC(18,4)", Number),
            ("DOUBLE PRECISION", Number),
            ("DATE", Date),
            ("TIMESTAMP", Moment),
        ],
    }
}

/// Types of the lake, and what the mapping adds.
const LAKE: [(&str, &str); 7] = [
    ("decimal(18,2)", ""),
    ("decimal(30,4)", ", round = 2"),
    ("int32", ""),
    ("text", ""),
    ("float64", ""),
    ("date", ""),
    ("timestamp", ""),
];

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i16>().prop_map(|number| number.to_string()),
        (-9_000_000_000_000_i64..9_000_000_000_000).prop_map(|number| number.to_string()),
        (any::<i32>(), 0_u8..5).prop_map(|(number, scale)| ExactDecimal::new(number.into(), scale).to_string()),
        (-1e9..1e9).prop_map(|number: f64| format!("{number:.3}")),
        Just("0.005".to_owned()),
        Just("-2.675".to_owned()),
    ]
}

fn day() -> impl Strategy<Value = String> {
    let days = (-690_000_i64..2_800_000).prop_map(|days| date(1970, 1, 1).saturating_add(days.days()).to_string());
    let no_days =
        (1000_u16..9999, 0_u8..14, 0_u8..33).prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"));
    prop_oneof![2 => days, 1 => no_days]
}

fn real_day() -> impl Strategy<Value = String> {
    (-690_000_i64..2_800_000).prop_map(|days| date(1970, 1, 1).saturating_add(days.days()).to_string())
}

fn clock() -> impl Strategy<Value = String> {
    (0_u8..24, 0_u8..60, 0_u8..60).prop_map(|(hour, minute, second)| format!("{hour:02}:{minute:02}:{second:02}"))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -&(-~]{0,12}",
        "[0-9]{1,4}[.,]?[0-9]{0,3}[,.]?[0-9]{0,2}",
        "[-+]{0,2}[0-9]{0,3}[.,eExX ]?[0-9]{1,3}[a-z]?",
        "[ñÑáéü€A-Za-z0-9]{0,10}",
        Just("N/A".to_owned()),
        Just("12,50".to_owned()),
        Just("1.234,50".to_owned()),
        Just("0042".to_owned()),
    ]
}

fn literal(class: Class) -> BoxedStrategy<String> {
    match class {
        Class::Number => number().boxed(),
        Class::Whole => (-9_000_000_000_000_i64..9_000_000_000_000).prop_map(|number| number.to_string()).boxed(),
        Class::Date => real_day().boxed(),
        Class::Moment => (real_day(), clock()).prop_map(|(day, clock)| format!("{day} {clock}")).boxed(),
        Class::Anything => prop_oneof![
            3 => text(),
            2 => number(),
            1 => day(),
            1 => (day(), clock()).prop_map(|(day, clock)| format!("{day} {clock}")),
        ]
        .boxed(),
    }
}

/// One table of one type, read into one type of the lake.
struct Table {
    kind: Kind,
    sql_type: &'static str,
    lake: (&'static str, &'static str),
    literals: Vec<String>,
}

impl Table {
    fn day(row: usize) -> String {
        format!("2017-03-{:02}", row + 1)
    }

    fn world(&self, name: &str) -> (Place, World) {
        let (lake, more) = self.lake;
        // Text has no exact sum in a server: there it is refused whatever it holds, for the mapping's sake.
        let has_sum = self.kind == Kind::Sqlite || !more.is_empty() || !self.is_text();
        let is_summed = has_sum && (lake.starts_with("decimal") || lake.starts_with("int"));
        let definition = format!(
            "name = \"valores\"\nversion = 1\nkind = \"daily\"\nbusiness_date = \"fecha\"\nkey = [\"id\"]\n\
             audit_sums = [{}]\nlookback_days = 3\ntitles = {{ es = \"\", en = \"\" }}\ncolumn = [\n\
             {{ name = \"fecha\", type = \"date\", nullable = false }},\n\
             {{ name = \"id\", type = \"int64\", nullable = false }},\n{{ name = \"v\", type = \"{lake}\" }},\n]\n",
            if is_summed { "\"v\"" } else { "" },
        );
        let mapping = format!(
            "[adapter.caja.valores]\nfrom = \"valores\"\ndate = \"fecha\"\n[adapter.caja.valores.columns]\nid = \"id\"\n\
             v = {{ sql = \"v\"{more} }}\n"
        );
        let place = Place::new(self.kind, name);
        let world = place.world_of(&definition, &mapping);
        place.create(&world, "valores", &format!("fecha DATE, id INTEGER, v {}", self.sql_type));
        let mut statements = Vec::new();
        let mut insert = "INSERT INTO";
        if self.kind == Kind::Mariadb {
            statements.push("SET sql_mode = 'ALLOW_INVALID_DATES'".to_owned());
            insert = "INSERT IGNORE INTO";
        }
        for (row, literal) in self.literals.iter().enumerate() {
            let mut quoted = format!("'{}'", literal.replace('\'', "''").replace('\\', "/"));
            // A literal that is a number, now and then: SQLite keeps it as one.
            if row % 2 == 1 && literal.parse::<ExactDecimal>().is_ok() && !literal.starts_with('+') {
                quoted.clone_from(literal);
            }
            statements.push(format!("{insert} valores VALUES ('{}', {}, {quoted})", Self::day(row), row + 1));
        }
        place.sql(&world, &statements);
        (place, world)
    }

    /// What the till shows of a row's value, by its own means.
    fn stored(&self, place: &Place, world: &World, row: usize) -> String {
        let shown = match self.kind {
            Kind::Sqlite => "IIF(typeof(v) = 'real', printf('%!.17g', v), CAST(v AS TEXT))",
            Kind::Mariadb => "CAST(v AS CHAR)",
            Kind::Postgres => "v::text",
            Kind::Firebird => "CAST(v AS VARCHAR(60))",
        };
        place.ask(world, &format!("SELECT COALESCE({shown}, 'NULL') FROM valores WHERE id = {}", row + 1))
    }

    fn check(&self, name: &str) -> Vec<String> {
        let (place, world) = self.world(name);
        let agent = world.start().unwrap();
        let mut refused = BTreeMap::new();
        for row in 0..self.literals.len() {
            let day = Self::day(row);
            let report = run(&agent, RunMode::Extract { days: days(&day, &day), force: false });
            // The alarms of the days before stand in every report.
            let told = report.datasets[0].refused.first().map(|refused| refused.reason.clone());
            let told = told.or_else(|| report.problems.first().map(|problem| problem.message.clone()));
            refused.extend(told.map(|told| (row, told)));
        }
        let mut sent = BTreeMap::new();
        for manifest in world.manifests() {
            let Unit::Day(day) = manifest.units[0].unit else { panic!("{manifest:?}") };
            assert!(manifest.units[0].is_proven(), "{}", self.told(day.day() as usize - 1));
            let rows = world.rows(&manifest).remove(0);
            sent.insert(day.day() as usize - 1, show(rows.column_by_name("v").unwrap(), 0));
        }
        let wrong = |row: usize| {
            let stored = self.stored(&place, &world, row);
            let what = format!("{} holds {stored:?}", self.told(row));
            match (sent.get(&row), refused.get(&row)) {
                (Some(found), None) if self.agrees(&stored, found) => None,
                (Some(found), None) => Some(format!("{what}: sent as {found:?}")),
                (None, Some(told)) if self.must_be_taken(&stored) => Some(format!("{what}: refused: {told}")),
                (None, Some(told)) => {
                    let id = format!("id = {}", row + 1);
                    let names = ["dataset valores", "column v", &id].iter().all(|word| told.contains(word));
                    (!names).then(|| format!("{what}: refused without its row: {told}"))
                }
                _ => Some(format!("{what}: neither sent nor refused, or both")),
            }
        };
        (0..self.literals.len()).filter_map(wrong).collect()
    }

    fn is_text(&self) -> bool {
        matches!(self.sql_type, "VARCHAR(60)" | "CHAR(60) CHARACTER SET latin1" | "text")
    }

    fn told(&self, row: usize) -> String {
        format!("{:?} {} -> {:?}: {:?}", self.kind, self.sql_type, self.lake, self.literals[row])
    }

    /// Whether the lake's value is the till's.
    fn agrees(&self, stored: &str, sent: &str) -> bool {
        if stored == "NULL" || sent == "NULL" {
            return stored == sent;
        }
        let moment = stored.replace(' ', "T");
        let moment = moment.strip_suffix(".0000").unwrap_or(&moment);
        match self.lake.0 {
            "text" => stored == sent || moment == sent,
            "date" => sent == stored.get(..10).unwrap_or_default() && matches!(&moment[10..], "" | "T00:00:00"),
            "timestamp" => {
                let local: jiff::civil::DateTime = moment.parse().unwrap();
                let zoned = local.in_tz("America/New_York").unwrap();
                zoned.timestamp() == sent.parse().unwrap()
            }
            "float64" => stored.parse::<f64>() == sent.parse::<f64>(),
            _ if self.lake.1.is_empty() => stored.trim().parse::<ExactDecimal>().unwrap() == sent.parse().unwrap(),
            _ => {
                let (exact, rounded): (f64, f64) = (stored.trim().parse().unwrap(), sent.parse().unwrap());
                (exact - rounded).abs() <= 0.005_000_1 + exact.abs() * 1e-14
            }
        }
    }

    /// Plain values that fit: a refusal would be one too many.
    fn must_be_taken(&self, stored: &str) -> bool {
        let is_float = self.sql_type.contains("DOUBLE") || self.sql_type.contains("double") || self.sql_type == "REAL";
        // A number that SQLite stored as a float wherever it could.
        let may_be_float = is_float || self.kind == Kind::Sqlite && stored.contains('.') && self.sql_type != "TEXT";
        let plain = stored.parse::<ExactDecimal>().ok().filter(|_| stored.len() < 12);
        match self.lake {
            _ if stored == "NULL" => true,
            ("decimal(18,2)", _) => !may_be_float && plain.is_some_and(|number| number.rescale(2).is_some()),
            ("decimal(30,4)", _) => plain.is_some(),
            ("int32", _) => {
                let whole = plain.and_then(|number| number.rescale(0)).map(ExactDecimal::unscaled);
                !may_be_float && whole.is_some_and(|whole| i32::try_from(whole).is_ok())
            }
            ("text", _) => !may_be_float && (self.kind == Kind::Sqlite || !self.sql_type.starts_with("DATE")),
            ("date", _) => stored.parse::<jiff::civil::Date>().is_ok_and(|day| day.to_string() == stored),
            _ => false,
        }
    }
}

fn check_all(kind: Kind, tables: usize, lakes: usize) {
    let mut runner = TestRunner::default();
    let mut wrong = Vec::new();
    for (number, (sql_type, class)) in types(kind).iter().cycle().take(tables).enumerate() {
        let lakes = prop::sample::subsequence(LAKE.to_vec(), lakes).new_tree(&mut runner).unwrap().current();
        for (index, lake) in lakes.iter().enumerate() {
            // Dates are no numbers: these servers say so of the mapping, not of a value.
            let is_date = matches!(class, Class::Date | Class::Moment);
            if is_date && (lake.0.starts_with("decimal") || lake.0.starts_with("int")) {
                continue;
            }
            let rows = prop::collection::vec(literal(*class), ROWS);
            let literals = rows.new_tree(&mut runner).unwrap().current();
            let table = Table { kind, sql_type, lake: *lake, literals };
            wrong.extend(table.check(&format!("azar_{number}_{index}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn random_values_of_sqlite_are_exact_or_refused_with_their_row() {
    check_all(Kind::Sqlite, 5 * types(Kind::Sqlite).len(), LAKE.len());
}

#[test]
fn random_values_of_mariadb_are_exact_or_refused_with_their_row() {
    check_all(Kind::Mariadb, types(Kind::Mariadb).len(), 4);
}

#[test]
fn random_values_of_postgres_are_exact_or_refused_with_their_row() {
    check_all(Kind::Postgres, types(Kind::Postgres).len(), 4);
}

#[test]
fn random_values_of_firebird_are_exact_or_refused_with_their_row() {
    check_all(Kind::Firebird, types(Kind::Firebird).len(), 4);
}
