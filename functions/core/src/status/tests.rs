use futures::executor::block_on;
use ribera_storage::object::{MemoryStore, ObjectPath};
use ribera_storage::ports::Host;
use ribera_storage::store::StoreDefinition;
use ribera_storage::{control, dataset};

use super::*;
use crate::coverage::{self, CoverageSettings};
use crate::fixture::{FixedClock, SeededRandom};

type TestDeps = Host<MemoryStore, FixedClock, SeededRandom>;

fn get(host: &TestDeps, target: &str) -> Response {
    block_on(respond(host.ports(), &Request { method: "GET".to_owned(), target: target.to_owned() }))
}

fn json(host: &TestDeps, target: &str) -> serde_json::Value {
    let response = get(host, target);
    assert_eq!(response.status, 200, "{target}: {}", response.body);
    serde_json::from_str(&response.body).unwrap()
}

/// `count` stores with coverage and no data.
fn with_stores(count: usize) -> TestDeps {
    let host = Host::new(MemoryStore::new(), FixedClock::at("2026-01-20T12:00:00Z"), SeededRandom::default());
    block_on(async {
        let ventas = dataset::shipped("ventas").unwrap().unwrap();
        control::publish_dataset(&host.objects, &ventas).await.unwrap();
        let stores: Vec<StoreDefinition> = (0..count)
            .map(|number| {
                StoreDefinition::from_toml(&format!(
                    "id = \"s{number:05}\"\nname = \"<b>Ñandú</b> & \\\"{number}\\\"\"\ntime_zone = \"Europe/Madrid\"\nopened = \"2026-01-01\""
                ))
                .unwrap()
            })
            .collect();
        control::publish_stores(&host.objects, &stores).await.unwrap();
        coverage::refresh(host.ports(), &CoverageSettings::default()).await.unwrap();
    });
    host
}

#[test]
fn before_any_coverage_the_page_says_so_and_the_api_has_a_code() {
    let host = Host::new(MemoryStore::new(), FixedClock::at("2026-01-20T12:00:00Z"), SeededRandom::default());
    let page = get(&host, "/");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("Todavía no"));
    let summary = get(&host, "/api/v1/summary");
    assert_eq!(summary.status, 404);
    assert!(summary.body.contains("\"no_coverage_yet\""), "{}", summary.body);
    assert_eq!(get(&host, "/health").body, "ok");
}

#[test]
fn stores_come_in_pages_that_together_are_all_of_them() {
    let host = with_stores(250);
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let answer = json(&host, &format!("/api/v1/stores?dataset=ventas&limit=70&after={after}"));
        found.extend(
            answer["stores"].as_array().unwrap().iter().map(|store| store["store"].as_str().unwrap().to_owned()),
        );
        match answer["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<String> = (0..250).map(|number| format!("s{number:05}")).collect();
    assert_eq!(found, expected);
    let exact = json(&host, "/api/v1/stores?limit=100&after=s00149");
    assert_eq!(exact["stores"].as_array().unwrap().len(), 100);
    assert!(exact["next"].is_null());
    assert_eq!(json(&host, "/api/v1/summary")["totals"]["stores_active"], 250);
}

#[test]
fn a_calendar_gives_the_days_of_one_store_and_month() {
    let host = with_stores(3);
    let answer = json(&host, "/api/v1/calendar?store=s00001&month=2026-01");
    let days = answer["days"].as_array().unwrap();
    assert_eq!(days.len(), 20);
    assert_eq!((&days[0]["state"], &days[19]["state"]), (&"missing".into(), &"pending".into()));
}

#[test]
fn the_page_escapes_what_it_shows_in_both_languages() {
    let host = with_stores(3);
    for target in ["/", "/?lang=en&store=s00001", "/?store=s00002&month=2026-01", "/?after=s00000"] {
        let page = get(&host, target);
        assert_eq!(page.status, 200, "{target}");
        assert!(!page.body.contains("<b>Ñandú"), "{target}");
        assert!(page.body.contains("&lt;b&gt;Ñandú&lt;/b&gt; &amp; &quot;"), "{target}");
        for tag in ["table", "tr", "td", "th", "section", "main", "ul", "li", "a", "div", "dl", "span"] {
            let opened =
                page.body.matches(&format!("<{tag}>")).count() + page.body.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.body.matches(&format!("</{tag}>")).count(), "{tag} in {target}");
        }
    }
    assert!(get(&host, "/?lang=en").body.contains("<html lang=\"en\">"));
    assert!(get(&host, "/").body.contains("Muchos") || get(&host, "/").body.contains("muchos"));
}

#[test]
fn hostile_requests_get_a_stable_code_and_learn_nothing() {
    let host = with_stores(1);
    let long = format!("/?x={}", "y".repeat(5000));
    for (target, status, code) in [
        ("/admin", 404, "no_such_path"),
        ("/api/v1/stores?dataset=../control", 400, "bad_parameter"),
        ("/api/v1/stores?dataset=nope", 404, "no_such_dataset"),
        ("/api/v1/stores?limit=0", 400, "bad_parameter"),
        ("/api/v1/stores?limit=99999999999999999999", 400, "bad_parameter"),
        ("/api/v1/calendar?store=s00000", 400, "bad_parameter"),
        ("/api/v1/calendar?store=nobody&month=2026-01", 404, "no_such_store"),
        ("/?store=%3Cscript%3E", 400, "bad_parameter"),
        ("/?store=%ff", 400, "bad_query"),
        ("/?store=%", 400, "bad_query"),
        (&long, 414, "query_too_long"),
    ] {
        let response = get(&host, target);
        assert_eq!(response.status, status, "{target}: {}", response.body);
        assert!(response.body.contains(&format!("\"{code}\"")), "{target}: {}", response.body);
        assert!(!response.body.contains("<script>"));
    }
    let post = Request { method: "POST".to_owned(), target: "/".to_owned() };
    assert_eq!(block_on(respond(host.ports(), &post)).status, 405);
    let head = Request { method: "HEAD".to_owned(), target: "/".to_owned() };
    assert_eq!(block_on(respond(host.ports(), &head)).body, "");
}

#[test]
fn an_inner_error_is_logged_and_not_shown() {
    let host = with_stores(1);
    block_on(async {
        let path = ObjectPath::new("state/coverage/ventas/0000000099.json").unwrap();
        host.objects.put(&path, bytes::Bytes::from_static(b"{broken").into()).await.unwrap();
    });
    let response = get(&host, "/api/v1/summary");
    assert_eq!(response.status, 500);
    assert!(!response.body.contains("0000000099"), "{}", response.body);
    assert!(response.log.unwrap().contains("0000000099"));
}

#[test]
fn the_page_reads_as_many_objects_at_a_thousand_stores_as_at_a_hundred() {
    let started = std::time::Instant::now();
    let host = with_stores(1000);
    println!("coverage of 1,000 stores computed and kept in {:?}", started.elapsed());
    let started = std::time::Instant::now();
    let page = get(&host, "/?store=s00500");
    println!("page of 1,000 stores in {:?}, {} bytes", started.elapsed(), page.body.len());
    assert!(page.body.len() < 120_000);
    assert!(started.elapsed().as_millis() < 500, "{:?}", started.elapsed());
}

#[test]
fn the_policy_allows_the_style_of_the_page_and_nothing_else() {
    use base64::Engine as _;
    use sha2::Digest as _;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(page::STYLE));
    let policy = crate::headers::CONTENT_SECURITY_POLICY;
    assert!(policy.contains(&format!("style-src 'sha256-{hash}'")), "the style of the page has the hash {hash}");
    assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self'"));
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"));
}
