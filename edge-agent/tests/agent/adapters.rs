//! The adapters that come with the agent, on the products' own schema, generated data and grant
//! script: Abasto on a real MariaDB, Quirófano on a real Firebird. No SQL Server is to be had, so
//! Mostrador's tables and mapping stand on SQLite here; how that server is spoken to is tested apart.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::Command;

use arrow_array::cast::AsArray;
use arrow_array::types::Date32Type;
use jiff::Timestamp;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ribera_agent::config::adapters::shipped;
use ribera_agent::plan::Why;
use ribera_agent::ports::SpoolDisk;
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_core::ingest::{self, IngestSettings, Outcome, SweepBudget};
use ribera_storage::delta::Table;
use ribera_storage::ports::Clock;
use ribera_storage::ports::Host;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{ExactDecimal, Unit, control};
use rusqlite::Connection;

use crate::between::{Between, stand_between};
use crate::fixture::{Seeded, VirtualClock, World, block_on, days, run};
use crate::{firebird_server, mariadb_server};

/// A real server whose clock is the test's.
struct TillClock(VirtualClock);

impl Between for TillClock {
    fn now(&self, _: Timestamp) -> Timestamp {
        self.0.now()
    }
}

const FIRST: &str = "2017-04-24";
const LAST: &str = "2017-05-09";

/// What the tables of a product are called.
struct Names {
    documents: &'static str,
    /// Number, date and state of a document; its state when it is void.
    id: &'static str,
    date: &'static str,
    state: &'static str,
    void: &'static str,
    lines: &'static str,
    /// A line's document, number, product, quantity and amount, among its columns in their order.
    line: [&'static str; 5],
    line_columns: &'static [&'static str],
    /// Product and quantity of the stock.
    stock: [&'static str; 3],
    /// Rows of a day: of products, or of lines.
    by_product: bool,
    /// Those of them that are counted, without types.
    tables: &'static str,
}

const ABASTO: Names = Names {
    documents: "tickets",
    id: "id",
    date: "fecha",
    state: "estado",
    void: "C",
    lines: "partidas",
    line: ["ticket", "renglon", "producto", "cantidad", "importe"],
    line_columns: &["ticket", "renglon", "producto", "cantidad", "precio", "importe"],
    stock: ["productos", "codigo", "existencia"],
    by_product: true,
    tables: "CREATE TABLE tickets (id, fecha, hora, cajero, estado); CREATE TABLE partidas (ticket, renglon, producto, cantidad, precio, importe); CREATE TABLE productos (codigo, descripcion, proveedor, subcategoria, existencia, costo);",
};

const MOSTRADOR: Names = Names {
    documents: "Tickets",
    id: "TicketId",
    date: "FechaNegocio",
    state: "Estado",
    void: "X",
    lines: "TicketLineas",
    line: ["TicketId", "Linea", "Codigo", "Cantidad", "Importe"],
    line_columns: &["TicketId", "Linea", "Codigo", "Cantidad", "Precio", "Descuento", "Importe"],
    stock: ["Existencias", "Codigo", "Cantidad"],
    by_product: false,
    tables: "CREATE TABLE Tickets (TicketId, FechaNegocio, Momento, Cliente, Estado); CREATE TABLE TicketLineas (TicketId, Linea, Codigo, Cantidad, Precio, Descuento, Importe); CREATE TABLE Existencias (Codigo, Estante, Cantidad);",
};

const QUIROFANO: Names = Names {
    documents: "DOCUMENTOS",
    id: "ID",
    date: "FECHA",
    state: "ESTADO",
    void: "C",
    lines: "PARTIDAS",
    line: ["DOCUMENTO", "PARTIDA", "ARTICULO", "CANTIDAD", "IMPORTE"],
    line_columns: &["DOCUMENTO", "PARTIDA", "ARTICULO", "CANTIDAD", "PRECIO", "IMPORTE"],
    stock: ["EXISTENCIAS", "ARTICULO", "CANTIDAD"],
    by_product: false,
    tables: "CREATE TABLE DOCUMENTOS (ID, TIPO, FOLIO, FECHA, ALMACEN, ESTADO); CREATE TABLE PARTIDAS (DOCUMENTO, PARTIDA, ARTICULO, CANTIDAD, PRECIO, IMPORTE); CREATE TABLE EXISTENCIAS (ARTICULO, ALMACEN, CANTIDAD);",
};

/// A product's database, the agent before it, and the same rows counted by other means.
struct Till {
    names: Names,
    /// Of days.
    dataset: &'static str,
    world: World,
    oracle: Connection,
    owner: Box<dyn Fn(&str)>,
}

fn generated(product: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/adapters/generate.py");
    let output = Command::new("python3").args([script, product, "--from", FIRST]).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The generated rows in SQLite.
fn oracle(names: &Names, data: &str) -> Connection {
    let oracle = Connection::open_in_memory().unwrap();
    oracle.execute_batch(names.tables).unwrap();
    let known = [names.documents, names.lines, names.stock[0]].map(|table| format!("INSERT INTO {table} "));
    let inserts: Vec<&str> = data.lines().filter(|line| known.iter().any(|table| line.starts_with(table))).collect();
    oracle.execute_batch(&inserts.join("\n")).unwrap();
    oracle
}

fn config(product: &str, datasets: &str, source: &str) -> String {
    format!(
        r#"
folder = "agent"
object_store = {{ folder = "objects" }}
[[store]]
id = "s1"
time_zone = "America/New_York"
adapter = "{product}"
{datasets}
[store.source]
{source}
"#
    )
}

const PASSWORD: &str = "cambie-esta-clave";

fn abasto_source(database: &str, user: &str, password: &str) -> String {
    let port = mariadb_server::server().port;
    format!(
        "kind = \"mariadb\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"{database}\"\nuser = \"{user}\"\npassword = \"{password}\""
    )
}

fn abasto(database: &str, datasets: &str) -> Till {
    let (server, product) = (mariadb_server::server(), shipped("abasto").unwrap());
    let (database, data) = (server.database(database), generated("abasto"));
    let source = abasto_source(&database, "ribera", PASSWORD);
    let owner = move |sql: &str| drop(server.sql(&format!("USE {database};\n{sql}")));
    owner(&format!("{}\nSTART TRANSACTION;\n{data}\nCOMMIT;\n{}", product.schema, product.grant));
    Till {
        names: ABASTO,
        dataset: "ventas_agrupadas",
        world: World::with_config(&config("abasto", datasets, &source)),
        oracle: oracle(&ABASTO, &data),
        owner: Box::new(owner),
    }
}

fn quirofano_source(database: &str, user: &str, password: &str) -> String {
    let port = firebird_server::server().port;
    format!(
        "kind = \"firebird\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"{database}\"\nuser = \"{user}\"\npassword = \"{password}\"\ncharset = \"WIN1252\""
    )
}

fn quirofano(database: &str) -> Till {
    let (server, product) = (firebird_server::server(), shipped("quirofano").unwrap());
    let (database, data) = (server.database(database, "WIN1252"), generated("quirofano"));
    let source = quirofano_source(&database, "ribera", PASSWORD);
    let owner = move |sql: &str| drop(server.sql(&database, sql));
    owner(&format!("{}\n{data}\nCOMMIT;\n{}", product.schema, product.grant));
    Till {
        names: QUIROFANO,
        dataset: "movimientos",
        world: World::with_config(&config("quirofano", "", &source)),
        oracle: oracle(&QUIROFANO, &data),
        owner: Box::new(owner),
    }
}

/// On SQLite: amounts as text, which it keeps exact, and a sum that does so too.
fn mostrador() -> Till {
    let (product, data) = (shipped("mostrador").unwrap(), generated("mostrador"));
    let mapping = product.mapping.replace("SUM(", "ribera_sum(");
    let text = config("mostrador", "", "kind = \"sqlite\"\npath = \"mostrador.db\"");
    let world = World::with_config(&format!("{text}{mapping}"));
    let till = Connection::open(world.folder.path().join("mostrador.db")).unwrap();
    let schema = ["decimal(18,3)", "decimal(18,2)", "money"]
        .iter()
        .fold(product.schema.to_owned(), |schema, exact| schema.replace(exact, "text"));
    till.execute_batch(&format!("{schema}\nBEGIN;\n{data}\nCOMMIT;")).unwrap();
    let owner = move |sql: &str| till.execute_batch(sql).unwrap();
    Till { names: MOSTRADOR, dataset: "ventas", world, oracle: oracle(&MOSTRADOR, &data), owner: Box::new(owner) }
}

impl Till {
    fn ask(&self, ask: RunMode) -> Report {
        let mut agent = self.world.start().unwrap();
        stand_between(&mut agent, TillClock(self.world.clock.clone()));
        run(&agent, ask)
    }

    fn history(&self) -> Report {
        self.ask(RunMode::Backfill { days: days(FIRST, LAST), force: false })
    }

    /// Changes both the product's tables and those that are counted.
    fn change(&self, sql: &str) {
        (self.owner)(sql);
        self.oracle.execute_batch(sql).unwrap();
    }

    /// Rows and cents of each day, counted here.
    fn counted(&self) -> BTreeMap<Unit, (u64, i128)> {
        let Names {
            documents, id, date, state, void, lines, line: [document, _, product, _, amount], by_product, ..
        } = self.names;
        let rows = if by_product { format!("COUNT(DISTINCT l.{product})") } else { "COUNT(*)".to_owned() };
        let sql = format!(
            "SELECT d.{date}, {rows}, SUM(CAST(ROUND(l.{amount} * 100) AS INTEGER))
             FROM {documents} d JOIN {lines} l ON l.{document} = d.{id} WHERE d.{state} <> '{void}' GROUP BY d.{date}"
        );
        let mut asked = self.oracle.prepare(&sql).unwrap();
        let day = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(Unit, (u64, i128))> {
            let date: String = row.get(0)?;
            Ok((Unit::Day(date.parse().unwrap()), (row.get::<_, i64>(1)? as u64, i128::from(row.get::<_, i64>(2)?))))
        };
        asked.query_map([], day).unwrap().map(Result::unwrap).collect()
    }

    fn sent(&self) -> BTreeMap<Unit, (u64, i128)> {
        let cents = |total: &str| total.parse::<ExactDecimal>().unwrap().rescale(2).unwrap().unscaled();
        let lake = self.world.lake_of(self.dataset);
        lake.into_iter()
            .filter(|(_, (rows, _))| *rows > 0)
            .map(|(unit, (rows, total))| (unit, (rows, cents(&total))))
            .collect()
    }

    fn ids(&self, more: &str) -> Vec<i64> {
        let Names { documents, id, date, state, void, .. } = self.names;
        let sql = format!(
            "SELECT {id} FROM {documents} WHERE {state} <> '{void}' AND {date} >= '2017-05-04' {more} ORDER BY {id}"
        );
        let mut asked = self.oracle.prepare(&sql).unwrap();
        asked.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn day_of(&self, document: i64) -> Unit {
        let Names { documents, id, date, .. } = self.names;
        let sql = format!("SELECT {date} FROM {documents} WHERE {id} = {document}");
        let date: String = self.oracle.query_row(&sql, [], |row| row.get(0)).unwrap();
        Unit::Day(date.parse().unwrap())
    }

    /// The days of the last cycle that were planned, and why.
    fn planned(&self, report: &Report) -> BTreeMap<Unit, Why> {
        let of = report.datasets.iter().filter(|one| one.dataset.as_str() == self.dataset);
        of.flat_map(|one| &one.planned).map(|one| (one.unit, one.why)).collect()
    }
}

/// History equals the source to the cent, proven by the source's own audit.
fn history_equals_the_source(till: &Till) {
    let report = till.history();
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let counted = till.counted();
    assert_eq!(counted.len(), 16, "sales on every day");
    assert_eq!(till.sent(), counted);
    let units: Vec<_> = till.world.manifests().into_iter().flat_map(|one| one.units).collect();
    assert!(units.len() >= 16 && units.iter().all(|facts| facts.is_proven()));
    till.world.ingest();
}

/// A void, a return, and two changes that cancel out in count and sums, at random places.
fn changes_in_the_window_are_found(till: &Till, seed: usize) {
    let names = &till.names;
    let [document, number, product, quantity, amount] = names.line;
    let ids = till.ids("");
    let pick = |ids: &[i64], at: usize| ids[seed.wrapping_mul(7919).wrapping_add(at * 104_729) % ids.len()];
    let void = pick(&ids, 1);
    till.change(&format!(
        "UPDATE {} SET {} = '{}' WHERE {} = {void};",
        names.documents, names.state, names.void, names.id
    ));
    let ids = till.ids("");
    let back = pick(&ids, 2);
    let negative = |column: &&str| match *column {
        column if column == number => format!("{column} + 100"),
        column if column == quantity || column == amount => format!("-{column}"),
        column => column.to_owned(),
    };
    let columns: Vec<String> = names.line_columns.iter().map(negative).collect();
    till.change(&format!(
        "INSERT INTO {lines} SELECT {} FROM {lines} WHERE {document} = {back} AND {number} = 1;",
        columns.join(", "),
        lines = names.lines
    ));
    let two = format!(
        "AND (SELECT COUNT(DISTINCT {product}) FROM {} WHERE {document} = {}.{}) > 1",
        names.lines, names.documents, names.id
    );
    let swap = pick(&till.ids(&two), 3);
    for (line, sign) in [(1, "+"), (2, "-")] {
        till.change(&format!(
            "UPDATE {} SET {amount} = {amount} {sign} 1 WHERE {document} = {swap} AND {number} = {line};",
            names.lines
        ));
    }
    let expected: BTreeSet<Unit> = [void, back, swap].into_iter().map(|id| till.day_of(id)).collect();
    let report = till.ask(RunMode::Cycle);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    let planned = till.planned(&report);
    assert_eq!(planned.keys().copied().collect::<BTreeSet<_>>(), expected, "seed {seed}");
    assert!(planned.values().all(|why| *why == Why::Changed));
    assert_eq!(till.sent(), till.counted(), "seed {seed}");
    till.world.ingest();
    let quiet = till.ask(RunMode::Cycle);
    assert!(till.planned(&quiet).is_empty(), "nothing more: {:?}", quiet.datasets);
}

/// A cycle each hour of a day, stock moving all the while, through the real ingest: the lake has six
/// moments, each as the shelves were then.
fn stock_is_in_the_lake_at_six_moments(till: &Till) {
    let [table, code, quantity] = till.names.stock;
    let world = &till.world;
    let store = StoreDefinition::from_toml("id = \"s1\"\nname = \"Uno\"\ntime_zone = \"America/New_York\"\n").unwrap();
    block_on(control::publish_store(&world.objects, &store)).unwrap();
    let host = Host::new(world.objects.clone(), world.clock.clone(), Seeded(std::cell::Cell::new(1 << 40)));
    let mut expected = BTreeMap::new();
    for hour in 0..24 {
        let at = jiff::civil::date(2017, 5, 10).at(hour, 3 + hour % 5, 0, 0).in_tz("America/New_York").unwrap();
        world.clock.set(&at.timestamp().to_string());
        till.change(&format!("UPDATE {table} SET {quantity} = {hour}.125 WHERE {code} LIKE 'P-00%';"));
        let report = till.ask(RunMode::Cycle);
        assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
        if hour % 4 == 0 {
            let sql = format!("SELECT SUM(CAST(ROUND({quantity} * 1000) AS INTEGER)) FROM {table}");
            let sum: i64 = till.oracle.query_row(&sql, [], |row| row.get(0)).unwrap();
            expected.insert(Unit::Moment(at.timestamp()), (40, i128::from(sum)));
        }
        let settings = IngestSettings::default();
        let swept = block_on(ingest::sweep(host.ports(), &settings, &SweepBudget::default())).unwrap();
        for one in &swept.report.outcomes {
            assert!(matches!(one.outcome, Outcome::Committed { .. } | Outcome::AlreadyDone), "{one:?}");
        }
    }
    let table = Table::new(&world.objects, "inventario".parse().unwrap());
    let snapshot = block_on(table.load()).unwrap().expect("the table is there");
    let units = snapshot.files().flat_map(|file| file.units().unwrap());
    let lake: BTreeMap<Unit, (u64, i128)> = units
        .map(|tag| (tag.unit, (tag.facts.rows, tag.facts.sums["existencia"].rescale(3).unwrap().unscaled())))
        .collect();
    assert_eq!(lake, expected);
}

#[test]
fn abastos_daily_totals_come_from_its_procedure_to_the_cent_and_changes_are_found() {
    let till = abasto("abasto1", "");
    history_equals_the_source(&till);
    for seed in 1..4 {
        changes_in_the_window_are_found(&till, seed);
    }
}

#[test]
fn quirofanos_movements_equal_the_source_to_the_cent_and_changes_are_found() {
    let till = quirofano("QUIROFANO1");
    history_equals_the_source(&till);
    for seed in 1..4 {
        changes_in_the_window_are_found(&till, seed);
    }
}

#[test]
fn mostradors_ticket_lines_equal_the_source_to_the_cent_and_changes_are_found() {
    let till = mostrador();
    history_equals_the_source(&till);
    for seed in 1..4 {
        changes_in_the_window_are_found(&till, seed);
    }
}

#[test]
fn abastos_stock_is_in_the_lake_at_six_moments_of_a_day() {
    stock_is_in_the_lake_at_six_moments(&abasto("abasto2", "datasets = [\"inventario\"]"));
}

#[test]
fn quirofanos_stock_is_in_the_lake_at_six_moments_of_a_day() {
    // Two warehouses, one row per article.
    stock_is_in_the_lake_at_six_moments(&quirofano("QUIROFANO2"));
}

#[test]
fn mostradors_stock_is_in_the_lake_at_six_moments_of_a_day() {
    stock_is_in_the_lake_at_six_moments(&mostrador());
}

#[test]
fn with_daily_totals_alone_no_ticket_row_enters_the_spool_and_none_could_be_read() {
    let till = abasto("abasto3", "datasets = [\"ventas_agrupadas\"]");
    till.history();
    let definition = ribera_storage::dataset::shipped("ventas_agrupadas").unwrap().unwrap();
    let names: Vec<&str> = definition.columns.iter().map(|column| column.name.as_str()).collect();
    let files = till.world.disk.list().unwrap();
    assert!(!files.is_empty());
    let mut seen = BTreeSet::new();
    for (name, _) in &files {
        let mut bytes = Vec::new();
        till.world.disk.open(name).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
        let columns: Vec<String> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(columns, names, "{name}");
        for rows in reader.build().unwrap().map(Result::unwrap) {
            let dates = rows.column_by_name("fecha").unwrap().as_primitive::<Date32Type>().clone();
            let products = rows.column_by_name("producto_id").unwrap().as_string::<i32>().clone();
            for (date, product) in dates.values().iter().zip(&products) {
                assert!(
                    seen.insert((*date, product.unwrap().to_owned())),
                    "{date} {product:?} twice: not a day's total"
                );
            }
        }
    }
    let expected: u64 = till.counted().values().map(|(rows, _)| rows).sum();
    assert_eq!(seen.len() as u64, expected);
    let lines: u64 = till.oracle.query_row("SELECT COUNT(*) FROM partidas", [], |row| row.get(0)).unwrap();
    assert!(lines > expected, "{lines} ticket lines");
    // Neither would a mapping of somebody's own get at them: the procedures run with their maker's rights.
    let own = "[adapter.propio.ventas]\nfrom = \"tickets t JOIN partidas p ON p.ticket = t.id\"\ndate = \"t.fecha\"\n\
               columns = { ticket_id = \"t.id\", linea = \"p.renglon\", producto_id = \"p.producto\", cantidad = \"p.cantidad\", total = \"p.importe\" }\n";
    let text = config("propio", "", &abasto_source("abasto3", "ribera", PASSWORD));
    let world = World::with_config(&format!("{text}{own}"));
    let report = crate::fixture::extract(&world, FIRST, LAST);
    let told = format!("{:?}", report.problems);
    assert!(told.contains("denied") && world.manifests().is_empty(), "{told}");
}

/// What `ribera-agent check` says of each thing it tries: whether it works, and its warning.
fn checked(world: &World) -> BTreeMap<String, (bool, Option<String>)> {
    let output = Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
        .args(["--json", "check", "--config"])
        .arg(world.folder.path().join("agent.toml"))
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lines = answer.as_array().or_else(|| answer["checks"].as_array()).expect("lines").clone();
    let line = |line: serde_json::Value| {
        let warning = line["warning"].as_str().map(str::to_owned);
        (line["what"].as_str().unwrap().to_owned(), (line["ok"].as_bool().unwrap(), warning))
    };
    lines.into_iter().map(line).collect()
}

#[test]
fn check_finds_the_grant_scripts_user_without_a_right_to_write_and_warns_of_the_owner() {
    let abasto = abasto("abasto4", "");
    (abasto.owner)("CREATE USER IF NOT EXISTS duena@'%' IDENTIFIED BY 'secret'; GRANT ALL ON abasto4.* TO duena@'%';");
    let abastos_owner = config("abasto", "", &abasto_source("abasto4", "duena", "secret"));
    let quirofano = quirofano("QUIROFANO4");
    let database = quirofano.world.config.stores[0].source.database();
    let quirofanos_owner = config("quirofano", "", &quirofano_source(&database, "sysdba", "masterkey"));
    for (till, owner, right) in
        [(abasto, abastos_owner, "ALL PRIVILEGES"), (quirofano, quirofanos_owner, "administrator")]
    {
        let lines = checked(&till.world);
        assert!(lines.values().all(|(ok, _)| *ok), "{lines:?}");
        // A server whose wall clock shows another zone than the store's may be told, but nothing of rights.
        assert!(!lines["source"].1.as_deref().unwrap_or_default().contains("escribir"), "{lines:?}");
        assert!(lines.contains_key(till.dataset) && lines.contains_key("inventario"), "{lines:?}");
        let lines = checked(&World::with_config(&owner));
        let warning = lines["source"].1.as_deref().unwrap_or_default();
        assert!(warning.contains("puede escribir") && warning.contains(right), "{lines:?}");
    }
}

#[test]
fn quirofanos_movements_carry_names_types_and_flags() {
    let till = quirofano("QUIROFANO5");
    till.history();
    let manifests = till.world.manifests();
    let batch = manifests.iter().find(|one| one.batch.dataset.as_str() == "movimientos").unwrap();
    let (mut kinds, mut warehouses, mut flags) = (BTreeSet::new(), BTreeSet::new(), [0_usize; 3]);
    for rows in till.world.rows(batch) {
        let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().clone();
        kinds.extend(text("tipo_documento").iter().flatten().map(str::to_owned));
        warehouses.extend(text("tipo_almacen").iter().flatten().map(str::to_owned));
        assert!(text("articulo").iter().flatten().any(|name| name.starts_with("Pinza de disección")));
        assert!(text("articulo_id").iter().flatten().any(|code| code.starts_with("Ñ-")));
        for (flag, name) in flags.iter_mut().zip(["es_implante", "es_instrumento", "es_equipo_poder"]) {
            *flag += rows.column_by_name(name).unwrap().as_boolean().true_count();
        }
    }
    assert_eq!(
        kinds.iter().map(String::as_str).collect::<Vec<_>>(),
        ["Compra", "Devolución", "Traspaso entrada", "Traspaso salida", "Venta"]
    );
    assert_eq!(warehouses.iter().map(String::as_str).collect::<Vec<_>>(), ["consignación", "propio", "reparación"]);
    assert!(flags.iter().all(|count| *count > 0), "{flags:?}");
}

#[test]
fn a_shipped_adapter_is_for_its_own_kind_of_database_and_a_files_own_wins() {
    let parse = |text: &str| ribera_agent::config::Config::parse(text, &|_| Some(String::new()));
    let sqlite = config("abasto", "", "kind = \"sqlite\"\npath = \"x.db\"");
    let error = parse(&sqlite).unwrap_err().to_string();
    assert!(error.contains("store s1: source.kind") && error.contains("mysql"), "{error}");
    let own = "[adapter.abasto.ventas]\nfrom = \"v\"\ndate = \"fecha\"\n";
    let own = parse(&format!("{sqlite}{own}")).unwrap();
    let names: Vec<String> = own.datasets(&own.stores[0]).map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["ventas"], "a file's own replaces it whole");
    let unknown = parse(&config("otro", "", "kind = \"sqlite\"\npath = \"x.db\"")).unwrap_err();
    assert!(unknown.to_string().contains("config adapters"), "{unknown}");
}

#[test]
fn a_datasets_own_chunk_rows_win_over_the_limits() {
    let queries = |mapping: &str| {
        let world = World::with_config(
            &crate::fixture::CONFIG.replace("date = \"fecha\"", &format!("date = \"fecha\"\n{mapping}")),
        );
        for day in 1..=6 {
            world.sell(&format!("2017-04-0{day}"), day * 10..day * 10 + 2);
        }
        let report = world.backfill("2017-04-01", "2017-04-06");
        assert_eq!((report.exit(), report.datasets[0].rows), (Exit::Done, 12));
        world.fail_points.seen.borrow().iter().filter(|step| **step == ribera_agent::ports::step::SOURCE_QUERY).count()
    };
    assert_eq!(queries("chunk_rows = 4") - queries(""), 2, "three queries of two days instead of one of six");
}
