use super::*;

const SAMPLE_PAGE: &str = include_str!("../../../docs/agent.md");

fn env(name: &str) -> Option<String> {
    match name {
        "POS_PASSWORD" | "S3_SECRET" => Some("hunter2".to_owned()),
        "HASH_SALT" => Some("a salt of some length".to_owned()),
        _ => None,
    }
}

/// The fenced TOML blocks of docs/agent.md.
fn samples() -> Vec<&'static str> {
    SAMPLE_PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn minimal(more: &str) -> String {
    format!(
        r#"
folder = "agent"
object_store = {{ folder = "objects" }}
{more}
[[store]]
id = "s1"
time_zone = "Europe/Madrid"
adapter = "caja"
source = {{ kind = "sqlite", path = "pos.db" }}
[adapter.caja.ventas]
from = "lineas"
date = "fecha"
"#
    )
}

#[test]
fn the_sample_in_the_documentation_is_valid_whole_and_with_every_comment_taken_away() {
    let samples = samples();
    assert!(!samples.is_empty());
    for sample in samples {
        let config = Config::parse(sample, &env).unwrap();
        assert!(!config.stores.is_empty());
        // A line such as `# key = value` is a setting switched off: it must be valid switched on.
        let switched_on: String = sample
            .lines()
            .map(|line| match line.strip_prefix("#: ") {
                Some(setting) => format!("{setting}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        Config::parse(&switched_on, &env).unwrap();
    }
}

#[test]
fn the_command_line_wins_over_a_datasets_chunk_rows_and_these_over_the_limits() {
    let limits = |win| Limits { chunk_rows: 5_000, chunk_rows_win: win, ..Limits::default() };
    let own = DatasetMapping { chunk_rows: Some(1_000), ..DatasetMapping::default() };
    assert_eq!(limits(false).chunk_rows_of(&DatasetMapping::default()), (5_000, 1_000));
    assert_eq!(limits(false).chunk_rows_of(&own), (1_000, 100));
    assert_eq!(limits(true).chunk_rows_of(&own), (5_000, 1_000));
}

#[test]
fn relative_paths_count_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, minimal("")).unwrap();
    let config = Config::load(&file, &env).unwrap();
    assert_eq!(config.folder, folder.path().join("agent"));
    assert!(
        matches!(&config.stores[0].source, SourceConfig::Sqlite { path, .. } if *path == folder.path().join("pos.db"))
    );
}

#[test]
fn a_bad_setting_is_refused_naming_field_rule_and_value() {
    let firebird = |more: &str| {
        format!("[[store]]\nid = \"s2\"\nadapter = \"caja\"\nsource = {{ kind = \"firebird\", user = \"u\", {more} }}")
    };
    let (no_host, charset, database) = (
        firebird("database = \"d\""),
        firebird("host = \"h\", database = \"d\", charset = \"LATIN9\""),
        firebird("host = \"h\", database = \"\""),
    );
    let sql_server = |more: &str| {
        format!(
            "[[store]]\nid = \"s2\"\nadapter = \"caja\"\nsource = {{ kind = \"mssql\", database = \"d\", user = \"u\", {more} }}"
        )
    };
    let (instance, joined) =
        (sql_server("host = \"h\", port = 1433, instance = \"CAJA\""), sql_server("host = \"h\\\\CAJA\""));
    let cases: [(&str, &[&str]); 15] = [
        ("colour = 1", &["line 4", "colour", "unknown field"]),
        ("dry_run = \"yes\"", &["line 4", "dry_run", "yes", "boolean"]),
        ("limits = { chunk_rows = 0 }", &["limits.chunk_rows", "1 to", "\"0\""]),
        ("limits = { spool_bytes_max = 5 }", &["limits.spool_bytes_max", "must be", "\"5\""]),
        (
            "[[store]]\nid = \"s1\"\nadapter = \"caja\"\nsource = { kind = \"sqlite\", path = \"x\" }",
            &["store.id", "unique", "s1"],
        ),
        (
            "[[store]]\nid = \"s2\"\nadapter = \"otra\"\nsource = { kind = \"sqlite\", path = \"x\" }",
            &["store s2: adapter", "otra"],
        ),
        (
            "[[store]]\nid = \"s2\"\nadapter = \"caja\"\nsource = { kind = \"oracle\", path = \"x\" }",
            &["oracle", "sqlite"],
        ),
        (
            "[[store]]\nid = \"S2\"\nadapter = \"caja\"\nsource = { kind = \"sqlite\", path = \"x\" }",
            &["store id", "S2"],
        ),
        (
            "[[store]]\nid = \"s2\"\nadapter = \"caja\"\nsource = { kind = \"mysql\", database = \"d\", user = \"u\" }",
            &["store s2: source.host"],
        ),
        (&no_host, &["host", "missing"]),
        (&charset, &["LATIN9", "UTF8", "WIN1252"]),
        (&database, &["store s2: source.database", "1 to 255"]),
        (&instance, &["store s2: source.instance", "port", "CAJA"]),
        (&joined, &["store s2: source.host", "instance", "CAJA"]),
        ("[adapter.caja.productos]\nextract = \"SELECT 1\"", &["adapter.caja.productos.audit", "must be there"]),
    ];
    for (more, words) in cases {
        let error = Config::parse(&minimal(more), &env).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error:?} should name {word:?}");
        }
    }
}

/// With an object store and limits of its own.
fn stored(object_store: &str, limits: &str) -> Result<Config, ribera_storage::Error> {
    let text = minimal(&format!("limits = {{ {limits} }}"));
    Config::parse(&text.replace("object_store = { folder = \"objects\" }", object_store), &env)
}

fn s3(more: &str) -> String {
    format!(
        "object_store = {{ s3 = {{ endpoint = \"https://s3.example.com\", bucket = \"ventas\", region = \"eu-west-1\", \
         access_key_id = \"K\", secret_access_key = \"${{S3_SECRET}}\", {more} }} }}"
    )
}

#[test]
fn an_object_store_is_a_folder_or_a_bucket_and_what_is_wrong_with_it_is_named() {
    let config = stored(&s3("prefix = \"a/b/\", ca_file = \"/x/ca.pem\""), "").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let settings = config.object_store.s3.unwrap().settings();
    assert_eq!((settings.prefix.as_str(), settings.path_style), ("a/b/", true));
    assert_eq!(settings.secret_access_key.expose(), "hunter2");
    let amazon = s3("path_style = true").replace("s3.example.com", "s3.eu-west-1.amazonaws.com");
    assert!(stored(&amazon, "").unwrap().object_store.s3.unwrap().settings().path_style);
    let amazon = amazon.replace("path_style = true", "timeout_s = 5");
    assert!(!stored(&amazon, "").unwrap().object_store.s3.unwrap().settings().path_style);
    let both = s3("timeout_s = 5").replace("{ s3", "{ folder = \"objects\", s3");
    let proxy = |url: &str| s3(&format!("proxy = {{ url = \"{url}\", user = \"u\", password = \"${{S3_SECRET}}\" }}"));
    let user = s3("timeout_s = 9").replace("s3.example", "u:hunter2@s3.example");
    let cases: [(String, &[&str]); 9] = [
        ("object_store = { }".to_owned(), &["object_store.folder", "neither"]),
        (both, &["object_store.folder", "absent beside s3"]),
        (s3("timeout_s = 9").replace("https://", "ftp://"), &["object_store.s3.endpoint", "ftp://s3.example.com"]),
        (user, &["object_store.s3.endpoint", "s3.example.com"]),
        (s3("timeout_s = 9").replace("\"ventas\"", "\"ve/ntas\""), &["object_store.s3.bucket", "ve/ntas"]),
        (s3("prefix = \"a//b\""), &["object_store.s3.prefix", "a//b"]),
        (s3("timeout_s = 0"), &["object_store.s3.timeout_s", "1 to 600"]),
        (proxy("socks5://127.0.0.1:1080"), &["object_store.s3.proxy.url", "socks5"]),
        (proxy(&format!("http://{}127.0.0.1:3128", "u:hunter2@")), &["object_store.s3.proxy.url", "keys of their own"]),
    ];
    for (text, words) in cases {
        let error = stored(&text, "").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        for word in words {
            assert!(error.contains(word), "{error:?} should name {word:?}");
        }
    }
    stored(&proxy("http://127.0.0.1:3128"), "").unwrap();
}

#[test]
fn hours_without_any_upload_must_leave_some_of_the_day() {
    let schedule = |text: &str| stored("object_store = { folder = \"o\" }", &format!("upload_schedule = [{text}]"));
    schedule("{ hours = \"08:00-22:00\", bytes_per_s = 50_000 }, { hours = \"22:00-08:00\", bytes_per_s = 0 }")
        .unwrap();
    let never = "{ hours = \"08:00-22:00\", bytes_per_s = 0 }, { hours = \"22:00-08:00\", bytes_per_s = 0 }";
    for (text, word) in [
        (never, "leave some time"),
        ("{ hours = \"8-22\" }", "HH:MM"),
        ("{ hours = \"08:00-09:00\", bytes_per_s = 9 }", "1024"),
    ] {
        let error = schedule(text).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_missing_secret_is_named_and_a_secret_is_never_shown() {
    let server = |password: &str| {
        format!(
            "[[store]]\nid = \"s2\"\nadapter = \"caja\"\nsource = {{ kind = \"mariadb\", host = \"h\", database = \"d\", user = \"u\", password = \"{password}\" }}"
        )
    };
    let error = Config::parse(&minimal(&server("${NOT_SET}")), &env).unwrap_err().to_string();
    assert!(error.contains("store.source.password") && error.contains("NOT_SET"), "{error}");
    let config = Config::parse(&minimal(&server("${POS_PASSWORD}")), &env).unwrap();
    let SourceConfig::Mysql(server) = &config.stores.iter().find(|store| store.id.as_str() == "s2").unwrap().source
    else {
        panic!("s2 is a server");
    };
    assert_eq!(server.password.as_ref().unwrap().expose(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn an_error_in_the_text_does_not_quote_the_line() {
    let text = minimal("password_typo = \"hunter2\"");
    let error = Config::parse(&text, &env).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_character_set_is_one_that_is_known_and_where_text_needs_it() {
    let mapped = |source: &str, column: &str| {
        let text = minimal("").replace("source = { kind = \"sqlite\", path = \"pos.db\" }", source);
        Config::parse(&format!("{text}[adapter.caja.ventas.columns]\nnota = {column}\n"), &env)
    };
    const SQLITE: &str = "source = { kind = \"sqlite\", path = \"pos.db\" }";
    const LATIN: &str = "{ sql = \"nota\", charset = \"windows-1252\" }";
    let of_source = SQLITE.replace("\" }", "\", charset = \"windows-1252\" }");
    for (source, column) in [(SQLITE, LATIN), (&of_source, "\"nota\""), (&of_source, LATIN)] {
        mapped(source, column).unwrap();
    }
    let server = |kind: &str, more: &str| {
        format!("source = {{ kind = \"{kind}\", host = \"h\", database = \"d\", user = \"u\"{more} }}")
    };
    for kind in ["mysql", "mariadb", "postgres"] {
        mapped(&server(kind, ", charset = \"iso-8859-2\""), LATIN).unwrap();
    }
    let unknown = of_source.replace("1252", "9999");
    let cases: &[(&str, &str, &[&str])] = &[
        (&unknown, "\"nota\"", &["charset", "must be the name of a character set", "windows-9999"]),
        (SQLITE, "{ sql = \"nota\", charset = \"cp850\" }", &["nota", "charset", "must be the name", "cp850"]),
        (SQLITE, "{ sql = \"nota\", charset = \"utf-16le\" }", &["charset", "must be the name", "utf-16le"]),
        (
            &server("firebird", ""),
            LATIN,
            &["adapter.caja.ventas.columns.nota.charset", "source.charset", "windows-1252"],
        ),
        (&server("sqlserver", ""), LATIN, &["adapter.caja.ventas.columns.nota.charset", "SQL Server", "windows-1252"]),
    ];
    for (source, column, words) in cases {
        let error = mapped(source, column).unwrap_err().to_string();
        for word in *words {
            assert!(error.contains(word), "{error:?} should name {word:?}");
        }
    }
}

#[test]
fn two_stores_of_one_company_with_days_in_common_are_twins() {
    let store = |id: &str, more: &str| {
        format!(
            "\n[[store]]\nid = \"{id}\"\ntime_zone = \"Europe/Madrid\"\nadapter = \"caja\"\n\
             source = {{ kind = \"sqlite\", path = \"{id}.db\" }}\n{more}"
        )
    };
    let year = |year: u32| {
        format!("databases = [{{ from = \"{year}-01-01\", to = \"{year}-12-31\", database = \"d{year}\" }}]")
    };
    let first = "tenant = \"900.123\"\n";
    let pairs = |stores: &[String]| -> Vec<(String, String)> {
        let config = Config::parse(&(minimal("") + &stores.concat()), &env).unwrap();
        twins(&config.stores).into_iter().map(|(one, other)| (one.id.to_string(), other.id.to_string())).collect()
    };
    let a = store("a", &(first.to_owned() + &year(2025)));
    assert_eq!(pairs(&[a.clone(), store("b", &(first.to_owned() + &year(2026)))]), []);
    assert_eq!(pairs(&[a.clone(), store("b", "tenant = \"900.124\"")]), []);
    let both = [("a".to_owned(), "b".to_owned())];
    assert_eq!(pairs(&[a.clone(), store("b", "tenant = \"900123\"")]), both);
    assert_eq!(pairs(&[a, store("b", &(first.to_owned() + &year(2025)))]), both);
}
