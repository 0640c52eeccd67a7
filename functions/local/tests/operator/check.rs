//! `ribera check`: real ports of this machine.

use std::net::TcpListener;

use serde_json::json;

use super::fixture::{Lake, january};

fn store(id: &str, more: &str) -> String {
    format!(
        "id = \"{id}\"\nname = \"{id}\"\ntime_zone = \"UTC\"\nopened = \"2026-01-01\"\nclosed = \"2026-01-31\"\n{more}"
    )
}

#[test]
fn the_centre_tells_who_can_be_reached_why_not_and_what_to_run() {
    let lake = Lake::new(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    lake.store(&store("abierta", &format!("host = \"127.0.0.1\"\nport = {open}")));
    lake.store(&store("cerrada", &format!("host = \"127.0.0.1\"\nport = {closed}")));
    lake.store(&store("perdida", "host = \"no-such-host.invalid\"\nport = 1433"));
    lake.store(&store("lectora", &format!("host = \"127.0.0.1\"\nport = {open}")));
    lake.store(&store("inactiva", "host = \"127.0.0.1\"\nactive = false"));
    lake.store(&store("sin-host", ""));
    lake.batch("abierta/ventas/000000-0000000001", &january(1, 20));
    lake.batch("lectora/ventas/000000-0000000001", &january(1, 31));
    let beat = |id: &str, outcome: &str| {
        let beat = lake.root().join(format!("agents/{id}/heartbeat.json"));
        std::fs::create_dir_all(beat.parent().unwrap()).unwrap();
        let heartbeat = json!({
            "store": id, "at": "2026-01-31T10:00:00Z", "agent_version": "0.1.0", "journal_id": "j",
            "spool": {"batches": 0, "bytes": 0, "bytes_max": 1},
            "runs": [{"dataset": "ventas", "begun_at": "2026-01-31T10:00:00Z", "outcome": outcome}],
        });
        std::fs::write(&beat, heartbeat.to_string()).unwrap();
    };
    beat("lectora", "ok");
    // Its agent runs and says why it cannot read.
    lake.store(&store("sin-clave", &format!("host = \"127.0.0.1\"\nport = {open}")));
    beat("sin-clave", "source: mysql caja at 127.0.0.1:3306: cannot connect: user or password: Access denied");

    let (answer, code) = lake.json(&["check", "--timeout", "2"]);
    assert_eq!(code, 1, "{answer}");
    let way = |id: &str| {
        let stores = answer["stores"].as_array().unwrap();
        stores.iter().find(|one| one["store"] == id).map(|one| one["way"].as_str().unwrap().to_owned())
    };
    let ways = ["abierta", "cerrada", "perdida", "lectora", "inactiva", "sin-host"].map(way);
    let wanted = [Some("port_ok"), Some("reachable"), Some("unreachable"), Some("connected"), Some("inactive"), None];
    assert_eq!(ways, wanted.map(|one| one.map(str::to_owned)));
    let summary = &answer["summary"];
    assert_eq!((&summary["tried"], &summary["up"], &summary["up_percent"]), (&json!(5), &json!(2), &json!(40.0)));
    let causes = json!({"name_unknown": ["perdida"], "port_refused": ["cerrada"], "credentials": ["sin-clave"]});
    assert_eq!(summary["causes"], causes);
    // Of those that are up only one lacks days.
    assert_eq!(summary["backfill"], "ribera-agent backfill --stores abierta --from 2026-01-21 --to 2026-01-31");

    let (text, _) = lake.text(&["check", "--only-active", "--sequential", "--timeout", "2"]);
    for words in [
        "reachable: 2 / 5 (40 %)",
        "sin-clave: user or password is wrong",
        "cerrada: no service listens on that port",
        "ribera-agent backfill",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("inactiva"), "{text}");
    let (good, code) = lake.json(&["check", "--store", "abierta"]);
    assert_eq!((code, &good["summary"]["causes"]), (0, &json!({})));
}
