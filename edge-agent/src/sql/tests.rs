use jiff::civil::date;
use ribera_storage::dataset::shipped;

use super::*;
use crate::config::{ColumnMapping, DatasetMapping};

fn bound(text: &str, dialect: Dialect) -> (String, Vec<String>) {
    let template = Template::parse(text, dialect).unwrap();
    let statement = template.bind(date(2017, 12, 30), date(2017, 12, 31), &"s1".parse().unwrap());
    (statement.sql.into_owned(), statement.parameters)
}

#[test]
fn named_parameters_become_positional_in_their_order() {
    let (sql, parameters) =
        bound("SELECT :store WHERE d >= :from AND d < :after AND d <= :to OR d = :day", Dialect::Sqlite);
    assert_eq!(sql, "SELECT ? WHERE d >= ? AND d < ? AND d <= ? OR d = ?");
    assert_eq!(parameters, ["s1", "2017-12-30", "2018-01-01", "2017-12-31", "2017-12-30"]);
}

#[test]
fn quoted_texts_comments_and_casts_keep_their_colons() {
    let kept = "SELECT ':from', \":to\", a::text, 'it''s :day' /* :x */ -- :y\n, 5-3, x/2";
    assert_eq!(bound(kept, Dialect::Sqlite), (kept.to_owned(), vec![]));
    let mysql = "SELECT '\\':from', @v := 1 # :z\n";
    assert_eq!(bound(mysql, Dialect::Mysql), (mysql.to_owned(), vec![]));
}

#[test]
fn an_unknown_parameter_is_refused_by_name() {
    let error = Template::parse("SELECT :company", Dialect::Sqlite).unwrap_err();
    assert!(error.message().contains(":company"), "{error}");
}

#[test]
fn derived_queries_use_the_same_expressions_on_both_sides_of_the_audit() {
    let definition = shipped("ventas").unwrap().unwrap();
    let column = |sql: &str, round| ColumnMapping { sql: Some(sql.to_owned()), round, ..ColumnMapping::default() };
    let mapping = DatasetMapping {
        from: Some("lineas l".to_owned()),
        filter: Some("l.anulada = 0".to_owned()),
        date: Some("l.fecha".to_owned()),
        order: vec!["l.ticket".to_owned()],
        columns: [
            ("ticket_id", column("l.ticket", None)),
            ("linea", column("l.linea", None)),
            ("producto_id", column("l.codigo", None)),
            ("cantidad", column("l.cantidad", None)),
            ("total", column("l.importe", Some(2))),
        ]
        .map(|(name, column)| (name.to_owned(), column))
        .into(),
        ..DatasetMapping::default()
    };
    let queries = Queries::new(&definition, &mapping, Dialect::Mysql).unwrap();
    let bind = |template: &Template| {
        template.bind(date(2017, 1, 1), date(2017, 1, 31), &"s1".parse().unwrap()).sql.into_owned()
    };
    let extract = |total: &str| {
        format!(
            "SELECT l.fecha AS `fecha`, l.ticket AS `ticket_id`, l.linea AS `linea`, l.codigo AS `producto_id`, \
             l.cantidad AS `cantidad`, {total} AS `total` FROM lineas l \
             WHERE (l.anulada = 0) AND (l.fecha BETWEEN ? AND ?) ORDER BY l.fecha, l.ticket"
        )
    };
    // A number that the column holds is rounded; what is none stays as it is, or makes the sum none.
    let number =
        "((l.importe) REGEXP '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$' AND ABS(l.importe) < 1e36)";
    let rounded = "CAST((l.importe) AS DECIMAL(38,2))";
    let total = format!("IF({number}, CAST({rounded} AS CHAR), CONCAT(l.importe))");
    assert_eq!(bind(&queries.extract), extract(&total));
    assert_eq!(bind(queries.unrounded()), extract("l.importe"));
    assert_eq!(
        bind(&queries.audit),
        format!(
            "SELECT l.fecha AS `day`, COUNT(*) AS `rows`, SUM(l.cantidad) AS `cantidad`, \
             COALESCE(MIN(IF({number}, NULL, CONCAT('no number: ', l.importe))), \
             CAST(SUM(IF({number}, {rounded}, NULL)) AS CHAR)) AS `total` FROM lineas l \
             WHERE (l.anulada = 0) AND (l.fecha BETWEEN ? AND ?) GROUP BY l.fecha"
        )
    );
    let firebird = DatasetMapping { row_hash: true, ..mapping.clone() };
    let queries = Queries::new(&definition, &firebird, Dialect::Firebird).unwrap();
    assert!(bind(&queries.extract).contains("CAST((l.importe) AS NUMERIC(18,2)) AS \"total\" FROM lineas l"));
    let audit = bind(&queries.audit);
    assert!(
        audit.starts_with("SELECT l.fecha AS \"day\", COUNT(*) AS \"rows\", SUM(l.cantidad) AS \"cantidad\""),
        "{audit}"
    );
    assert_eq!(audit.matches("HASH(").count(), 6, "each column once: {audit}");
    assert!(audit.contains(" AS \"hash\" FROM"), "{audit}");
    let without_key = DatasetMapping { columns: Default::default(), ..mapping };
    let error = Queries::new(&definition, &without_key, Dialect::Mysql).unwrap_err();
    assert!(error.message().contains("ticket_id"), "{error}");
}

#[test]
fn a_dialect_without_parameters_has_its_values_quoted_in_the_text() {
    let (sql, parameters) =
        bound("SELECT $$ :from $$, $x$ :to $x$, '$', d::date WHERE d >= :from AND s = :store", Dialect::Postgres);
    assert_eq!(sql, "SELECT $$ :from $$, $x$ :to $x$, '$', d::date WHERE d >= '2017-12-30' AND s = 's1'");
    assert!(parameters.is_empty());
}

#[test]
fn sql_server_numbers_its_parameters_and_the_same_has_one_number() {
    let (sql, parameters) = bound(
        "SELECT :store, [a:from], ':to' FROM t WHERE d >= :from AND d < :after AND e >= :day GROUP BY :store",
        Dialect::SqlServer,
    );
    assert_eq!(sql, "SELECT @P1, [a:from], ':to' FROM t WHERE d >= @P2 AND d < @P3 AND e >= @P2 GROUP BY @P1");
    assert_eq!(parameters, ["s1", "2017-12-30", "2018-01-01"]);
    let template = Template::parse("EXEC p :from, :store", Dialect::SqlServer).unwrap();
    let statement = template.bind(date(2017, 12, 30), date(2017, 12, 31), &"2017-01-01".parse().unwrap());
    assert_eq!(statement.days, [Some(date(2017, 12, 30)), None], "a store may be called like a day");
}

#[test]
fn sql_server_sums_and_hashes_without_overflow_or_loss() {
    let dialect = Dialect::SqlServer;
    assert_eq!(dialect.sum("l.n", 0), "SUM(CAST((l.n) AS DECIMAL(38,0)))");
    assert_eq!(dialect.quote("a]b"), "[a]]b]");
    assert_eq!(dialect.rounded("x", 2), "CAST((x) AS DECIMAL(38,2))");
    assert_eq!(
        dialect.decimal_comma("x", 2),
        "CAST(NULLIF(REPLACE(REPLACE(LTRIM(RTRIM(x)), '.', ''), ',', '.'), '') AS DECIMAL(38,2))"
    );
    let hash = dialect.row_hash(&["a".to_owned(), "b".to_owned()]).unwrap();
    assert_eq!(
        hash,
        "SUM(CAST(CONVERT(bigint, SUBSTRING(HASHBYTES('MD5', \
         COALESCE(CONVERT(varbinary(8), DATALENGTH(a)) + CONVERT(varbinary(max), a), 0xFFFFFFFF) + \
         COALESCE(CONVERT(varbinary(8), DATALENGTH(b)) + CONVERT(varbinary(max), b), 0xFFFFFFFF)), 1, 8)) AS DECIMAL(38,0)))"
    );
}
