//! The agent with a bucket: a whole run, bad lines, clocks that are off, a spool larger than memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ribera_agent::agent::Agent;
use ribera_agent::host::SystemClock;
use ribera_agent::ports::SpoolDisk;
use ribera_agent::report::{Exit, Report};
use ribera_agent::run::collect::RunMode;
use ribera_storage::batch::Manifest;
use ribera_storage::hex::sha256_hex;
use ribera_storage::object::{S3Store, list_all};
use ribera_storage::ports::Clock;
use ribera_storage::{ObjectStore, Unit};
use serde_json::Value;

use crate::fixture::{CONFIG, World, day, request};
use crate::line::{Fault, Line};
use crate::s3_server::{SECRET, server};
use crate::s3_store::{Shifted, on_runtime, open, open_at};
use crate::servers::python;

/// Runs the agent of a world once on another object store.
fn once(world: &World, store: &S3Store) -> Report {
    let agent: Agent<S3Store> = world.start_on(store.clone(), world.journal().unwrap()).unwrap();
    on_runtime(agent.run("test", &request(RunMode::Cycle), Duration::ZERO))
}

/// What is in the bucket, where the world looks for it.
fn mirror(world: &World, store: &S3Store) {
    on_runtime(async {
        for meta in list_all(store, "", None).await.unwrap() {
            let bytes = store.get(&meta.path).await.unwrap().unwrap();
            world.objects.put(&meta.path, bytes.into()).await.unwrap();
        }
    });
}

/// How often each day was sent; each file is what its manifest says.
fn times_sent(world: &World) -> BTreeMap<Unit, u32> {
    let mut times = BTreeMap::new();
    for manifest in world.manifests() {
        world.rows(&manifest);
        manifest.units.iter().for_each(|facts| *times.entry(facts.unit).or_default() += 1);
    }
    times
}

#[test]
fn behind_a_captive_portal_nothing_is_acknowledged_and_afterwards_everything_arrives_once() {
    let world = World::new();
    world.sell("2017-05-08", 1..10);
    world.sell("2017-05-09", 20..30);
    let line = Line::to(server().port);
    let store = open(&server().settings(line.port, "agent-portal"));
    line.set_portal(true);
    for _ in 0..2 {
        let report = once(&world, &store);
        assert_eq!((report.exit(), report.upload.batches), (Exit::ObjectStore, 0), "{:?}", report.problems);
        assert!(report.problems[0].message.contains("captive portal"), "{:?}", report.problems);
    }
    let waiting = world.disk.list().unwrap().len();
    assert!(waiting > 0 && line.fired(Fault::Portal) > 0);
    line.set_portal(false);
    let report = once(&world, &store);
    assert_eq!((report.exit(), report.upload.batches), (Exit::Done, waiting as u64), "{:?}", report.problems);
    // The portal is back while answers are awaited: its page is none.
    line.set_portal(true);
    let report = once(&world, &store);
    assert_eq!((report.upload.acknowledged, report.upload.waiting), (0, waiting as u64));
    assert_eq!(world.disk.list().unwrap().len(), waiting, "what was not acknowledged is kept");
    line.set_portal(false);
    once(&world, &store);
    mirror(&world, &store);
    assert!(times_sent(&world).values().all(|times| *times == 1));
    let lake = world.lake();
    assert_eq!((lake[&day("2017-05-08")].0, lake[&day("2017-05-09")].0), (9, 10));
}

#[test]
fn lost_answers_resets_and_refusals_in_a_row_lose_and_double_nothing() {
    let world = World::new();
    for (number, date) in ["2017-05-04", "2017-05-05", "2017-05-06", "2017-05-08", "2017-05-09"].iter().enumerate() {
        let first = number as u32 * 100;
        world.sell(date, first..first + 30);
    }
    let line = Line::to(server().port);
    let store = open(&server().settings(line.port, "agent-faults"));
    // Files, manifests, epochs and differing days meet them alike: each put once and again.
    use Fault::{Conflict, LostAnswer, Portal, Reset, SlowDown};
    let every = [LostAnswer, Reset, SlowDown, LostAnswer, Conflict, LostAnswer, Portal];
    line.fail("PUT", &every);
    let mut new_epochs = once(&world, &store).upload.new_epochs;
    line.fail("PUT /ribera-pruebas/agent-faults/landing", &every[..4]);
    line.fail("PUT /ribera-pruebas/agent-faults/inbox", &every[..4]);
    line.fail("GET", &[Portal, SlowDown, Fault::NotFoundPage]);
    world.sql("UPDATE lineas SET centavos = centavos + 1 WHERE fecha < '2017-05-08'");
    for _ in 0..6 {
        new_epochs += once(&world, &store).upload.new_epochs;
    }
    let report = once(&world, &store);
    assert_eq!(report.exit(), Exit::Done, "{:?}", report.problems);
    line.assert_all_fired();
    mirror(&world, &store);
    let times = times_sent(&world);
    for date in ["2017-05-04", "2017-05-05", "2017-05-06", "2017-05-08", "2017-05-09"] {
        assert_eq!(world.lake()[&day(date)].0, 30, "{date}");
        assert!(times[&day(date)] <= 2, "{date}: sent {} times", times[&day(date)]);
    }
    assert_eq!(new_epochs, 0, "a lost answer looked like another agent");
}

#[test]
fn a_clock_four_hundred_days_off_does_no_harm_and_closes_no_day_early() {
    let real = SystemClock.now();
    let in_new_york = |at: Timestamp| at.to_zoned(jiff::tz::TimeZone::get("America/New_York").unwrap()).date();
    for days in [400, -400] {
        let mut world = World::new();
        let wrong = real + SignedDuration::from_hours(24 * days);
        world.clock.set(&wrong.to_string());
        let today = in_new_york(wrong);
        world.sell(&today.to_string(), 1..4);
        world.sell(&today.yesterday().unwrap().to_string(), 10..14);
        let store = open_at(&server().settings(server().port, &format!("agent-clock{days}")), Arc::new(Shifted(days)));
        let report = once(&world, &store);
        assert_eq!(report.exit(), Exit::Done, "{days}: {:?}", report.problems);
        mirror(&world, &store);
        let store_today = in_new_york(real);
        for manifest in world.manifests() {
            for facts in &manifest.units {
                let Unit::Day(date) = facts.unit else { continue };
                // Neither the till nor the bucket may be asked alone.
                assert!(!facts.closed || date < today.min(store_today), "{days}: {date} was closed too early");
            }
        }
        // The clock is set right, and the tills sell on.
        world.clock.set(&SystemClock.now().to_string());
        world.config.limits.upload_tries = 2;
        world.sell(&store_today.to_string(), 100..105);
        let report = once(&world, &store);
        assert_eq!(report.exit(), Exit::Done, "{days}: {:?}", report.problems);
        mirror(&world, &store);
        let lake = world.lake();
        assert_eq!(lake[&Unit::Day(store_today)].0, 5, "{days}");
        assert_eq!(lake[&Unit::Day(today)].0, 3, "{days}");
    }
}

/// A folder with a till and a configuration for the bucket.
fn place(name: &str, endpoint: &str, more: &str, limits: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bucket = server().toml(endpoint, name, more);
    let config = CONFIG.replace("object_store = { folder = \"objects\" }\n", "");
    let (head, tables) = config.split_once("[[store]]").unwrap();
    std::fs::write(folder.path().join("agent.toml"), format!("{head}{bucket}{limits}\n[[store]]{tables}")).unwrap();
    let till = rusqlite::Connection::open(folder.path().join("pos.db")).unwrap();
    till.execute_batch(
        "CREATE TABLE lineas (ticket INTEGER, linea INTEGER, fecha TEXT, hora TEXT, producto TEXT,
                              cantidad INTEGER, centavos INTEGER, PRIMARY KEY (ticket, linea));",
    )
    .unwrap();
    folder
}

fn agent(folder: &Path, words: &[&str]) -> Output {
    agent_command(folder, words).output().unwrap()
}

pub fn agent_command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ribera-agent"));
    command.arg("--config").arg(folder.join("agent.toml")).args(words).env("S3_SECRET", SECRET);
    for name in ["RIBERA_LANG", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command
}

pub fn sold_place(name: &str, endpoint: &str, more: &str) -> tempfile::TempDir {
    let place = place(name, endpoint, more, "");
    let till = rusqlite::Connection::open(place.path().join("pos.db")).unwrap();
    till.execute_batch(
        "INSERT INTO lineas VALUES (1, 1, '2017-01-02', '10:00:00', 'ñandú', 1, 150),
                                   (1, 2, '2017-01-02', '10:00:01', 'b', 3, 1999), (2, 1, '2017-01-03', '11:00:00', 'c', 2, 250);",
    )
    .unwrap();
    place
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn what_a_whole_run_put_into_the_bucket_reads_back_with_a_client_that_is_not_ours() {
    let encrypted = format!("https://localhost:{}", server().tls_port);
    let place = sold_place("whole", &encrypted, &format!("ca_file = \"{}\"", server().ca_file.display()));
    let words = ["--json", "extract", "--from", "2017-01-02", "--to", "2017-01-04"];
    let sent = agent(place.path(), &words);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    assert_eq!(json(&sent)["upload"]["batches"], 3);
    let again = json(&agent(place.path(), &words));
    assert_eq!((again["upload"]["batches"].as_u64(), again["upload"]["waiting"].as_u64()), (Some(0), Some(3)));
    let read = server().boto(
        "import hashlib, io, json\nimport pyarrow.parquet as pq\n\
         keys = [o['Key'] for o in s3.list_objects_v2(Bucket=BUCKET, Prefix='whole/')['Contents']]\n\
         get = lambda key: s3.get_object(Bucket=BUCKET, Key=key)['Body'].read()\n\
         rows = []\n\
         for key in keys:\n    \
             if not key.startswith('whole/inbox/'): continue\n    \
             file = json.loads(get(key))['file']\n    \
             data = get('whole/' + file['path'])\n    \
             assert hashlib.sha256(data).hexdigest() == file['sha256'] and len(data) == file['bytes']\n    \
             rows += pq.read_table(io.BytesIO(data)).select(['ticket_id', 'linea', 'producto_id', 'total']).to_pylist()\n\
         rows = sorted((r['ticket_id'], r['linea'], r['producto_id'], str(r['total'])) for r in rows)\n\
         print(json.dumps([rows, sorted({key.split('/')[1] for key in keys})]))\n",
    );
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(read[0], serde_json::json!([["1", 1, "ñandú", "1.50"], ["1", 2, "b", "19.99"], ["2", 1, "c", "2.50"]]));
    assert_eq!(read[1], serde_json::json!(["agents", "inbox", "landing"]), "no probe is left behind");
    // The secret is in no file of the agent's, nor on a screen.
    let mut seen = String::from_utf8_lossy(&[sent.stdout, sent.stderr].concat()).into_owned();
    for file in walk(&place.path().join("agent")) {
        seen += &String::from_utf8_lossy(&std::fs::read(file).unwrap());
    }
    assert!(!seen.contains(SECRET) && !seen.contains("X-Amz-Signature"));
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Days whose files have so many bytes each.
const BIG_DAYS: i64 = 30;
const BIG_BYTES: usize = 8 << 20;

#[test]
fn a_start_with_a_spool_larger_than_memory_stays_within_64_megabytes() {
    let endpoint = format!("http://127.0.0.1:{}", server().port);
    let place = place("memory", &endpoint, "", "");
    let till = rusqlite::Connection::open(place.path().join("pos.db")).unwrap();
    for number in 0..BIG_DAYS {
        let date = jiff::civil::date(2017, 1, 1) + SignedDuration::from_hours(24 * number);
        let row = rusqlite::params![number, date.to_string()];
        till.execute("INSERT INTO lineas VALUES (?1, 1, ?2, '10:00:00', 'a', 1, 150)", row).unwrap();
    }
    let words = ["--json", "--local-only", "extract", "--from", "2017-01-01", "--to", "2017-01-30"];
    let spooled = agent(place.path(), &words);
    assert_eq!(json(&spooled)["upload"]["waiting"], BIG_DAYS, "{spooled:?}");
    grow_spool(&place.path().join("agent"));
    // The greatest resident size of a child, by the system's own account.
    let program = "import json, resource, subprocess, sys\n\
                   done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)\n\
                   peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n\
                   print(json.dumps([done.returncode, peak, json.loads(done.stdout)]))\n";
    let words = ["--json", "once"];
    let run = agent_command(place.path(), &words);
    let mut measured = Command::new(python());
    measured.arg("-c").arg(program).arg(run.get_program()).args(run.get_args()).env("S3_SECRET", SECRET);
    let output = measured.output().unwrap();
    let answer = json(&output);
    assert_eq!(answer[0], 0, "{answer}");
    let (peak_kb, sent) = (answer[1].as_u64().unwrap(), answer[2]["upload"]["bytes"].as_u64().unwrap());
    assert!(sent > 200 << 20, "only {sent} bytes were sent");
    assert!(peak_kb <= 64 << 10, "{peak_kb} KB resident while {sent} bytes were sent");
    println!("{peak_kb} KB resident at most while {sent} bytes were sent");
}

/// Makes each file of a spool so big, and the journal say so.
fn grow_spool(folder: &Path) {
    let mut random = 1_u64;
    let filler: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    })
    .take(BIG_BYTES)
    .collect();
    let journal = rusqlite::Connection::open(folder.join("journal.sqlite")).unwrap();
    let mut select = journal.prepare("SELECT id, file, manifest FROM batch").unwrap();
    let batches: Vec<(i64, String, String)> = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(|row| row.unwrap())
        .collect();
    for (id, file, manifest) in batches {
        let path = folder.join("spool").join(file);
        let mut content = std::fs::read(&path).unwrap();
        content.extend_from_slice(&filler);
        let mut manifest = Manifest::from_json(manifest.as_bytes()).unwrap();
        let facts = &mut manifest.file;
        (facts.bytes, facts.sha256) = (content.len() as u64, sha256_hex(&content));
        std::fs::write(path, &content).unwrap();
        let row = rusqlite::params![content.len() as i64, serde_json::to_string(&manifest).unwrap(), id];
        journal.execute("UPDATE batch SET bytes = ?1, manifest = ?2 WHERE id = ?3", row).unwrap();
    }
}
