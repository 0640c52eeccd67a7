//! `ribera-agent check` with a bucket: what works, and the next step for each way it can fail.

use serde_json::Value;

use crate::line::{Fault, Line};
use crate::s3_agent::{agent_command, sold_place};
use crate::s3_server::{SECRET, server};

/// The checks of the object store, by name: whether each is good, and what it says.
fn check(endpoint: &str, more: &str, secret: &str, lang: &str) -> Vec<(String, bool, String)> {
    let place = sold_place("check", endpoint, more);
    let words = ["check", "--json", "--lang", lang, "--timeout", "2"];
    let output = agent_command(place.path(), &words).env("S3_SECRET", secret).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!shown.contains(SECRET) && !shown.contains("X-Amz-Signature"), "{shown}");
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let lines =
        answer["checks"].as_array().unwrap().iter().filter(|line| text(line, "what").starts_with("object_store"));
    lines.map(|line| (text(line, "what"), line["ok"] == true, text(line, "detail"))).collect()
}

#[test]
fn a_bucket_that_works_is_shown_step_by_step() {
    let endpoint = format!("https://localhost:{}", server().tls_port);
    let lines = check(&endpoint, &format!("ca_file = \"{}\"", server().ca_file.display()), SECRET, "es");
    let names: Vec<&str> = lines.iter().map(|(what, ..)| what.as_str()).collect();
    assert_eq!(names, ["object_store_network", "object_store_tls", "object_store_login", "object_store"]);
    assert!(lines.iter().all(|(_, ok, _)| *ok), "{lines:?}");
    assert!(lines[3].2.contains("reloj"), "{lines:?}");
}

#[test]
fn each_way_a_bucket_can_fail_is_told_with_the_next_step_in_both_languages() {
    let plain = format!("http://127.0.0.1:{}", server().port);
    let encrypted = format!("https://localhost:{}", server().tls_port);
    let (line, proxy) = (Line::to(server().port), Line::proxy("tienda:contraseña"));
    line.set_portal(true);
    let portal = format!("http://127.0.0.1:{}", line.port);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = format!("http://127.0.0.1:{closed}");
    let wrong_user =
        format!("proxy = {{ url = \"http://127.0.0.1:{}\", user = \"tienda\", password = \"otra\" }}", proxy.port);
    let unknown = format!("http://{}", "no-such-host.invalid");
    let cases = [
        (&unknown, "", SECRET, "object_store_network", "s3.endpoint", "not in the DNS"),
        (&refused, "", SECRET, "object_store_network", "nadie escucha", "no service listens"),
        (&encrypted, "", SECRET, "object_store_tls", "s3.ca_file", "s3.ca_file"),
        (&plain, "", "otro", "object_store_login", "s3.secret_access_key", "s3.secret_access_key"),
        (&plain, "bucket = \"no-such-bucket\"", SECRET, "object_store_login", "s3.bucket", "s3.bucket"),
        (&portal, "", SECRET, "object_store_login", "portal de la red", "network's portal"),
        (&plain, &wrong_user, SECRET, "object_store_login", "s3.proxy.user", "s3.proxy.user"),
        (&plain, "prefix = \"nocond\"", SECRET, "object_store", "If-None-Match", "If-None-Match"),
    ];
    for (endpoint, more, secret, what, es, en) in cases {
        for (lang, word) in [("es", es), ("en", en)] {
            let lines = check(endpoint, more, secret, lang);
            let (name, ok, detail) = lines.last().unwrap();
            assert_eq!((name.as_str(), *ok), (what, false), "{endpoint} {more}: {lines:?}");
            assert!(detail.contains(word), "{lang}: {detail:?} should name {word:?}");
            assert!(lines[..lines.len() - 1].iter().all(|(_, ok, _)| *ok), "{lines:?}");
        }
    }
    assert!(line.fired(Fault::Portal) > 0 && proxy.refused() > 0);
}

#[test]
fn without_a_proxy_of_its_own_the_environment_s_holds_but_for_hosts_it_leaves_out() {
    let proxy = Line::proxy("tienda:clave");
    let place = sold_place("environment", &format!("http://127.0.0.1:{}", server().port), "");
    let check = |no_proxy: &str| {
        let mut command = agent_command(place.path(), &["check", "--json"]);
        command.env("http_proxy", format!("http://{}127.0.0.1:{}", "tienda:clave@", proxy.port));
        let output = command.env("no_proxy", no_proxy).env_remove("NO_PROXY").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(!shown.contains("clave@"), "{shown}");
        shown
    };
    // Nobody can say from here whether the proxy reaches the bucket: that is told by the requests.
    assert!(!check("").contains("object_store_network"));
    let through = proxy.passed();
    assert!(through > 0, "the proxy saw nothing");
    check("127.0.0.1");
    assert_eq!(proxy.passed(), through, "a host that was left out went through the proxy");
}
