//! Clocks that are wrong by more than a year: the till's, the agent's, ahead and behind.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ribera_agent::report::Report;
use ribera_agent::run::collect::RunMode;

use crate::between::{Between, stand_between};
use crate::fixture::{World, block_on, day, days, request, run};
use crate::tds_responder::{self, Reply};
use crate::{sqlserver, tds};

/// A till whose own clock is off by this.
struct Off(SignedDuration);

impl Between for Off {
    fn now(&self, told: Timestamp) -> Timestamp {
        told.checked_add(self.0).unwrap()
    }
}

/// A cycle at `now` by the object store's clock, while the agent's and the till's are off.
fn cycle(world: &World, now: &str, agent_off: SignedDuration, till_off: SignedDuration) -> Report {
    let now: Timestamp = now.parse().unwrap();
    world.clock.set(&now.checked_add(agent_off).unwrap().to_string());
    world.objects.set_now(now);
    let mut agent = world.start().unwrap();
    stand_between(&mut agent, Off(till_off));
    block_on(agent.run("test", &request(RunMode::Cycle), Duration::ZERO))
}

#[test]
fn a_clock_off_by_400_days_does_no_harm_whosever_it_is() {
    let right = SignedDuration::ZERO;
    let off = SignedDuration::from_hours(400 * 24);
    for (name, agent_off, till_off) in [
        ("the agent's, ahead", off, right),
        ("the agent's, behind", -off, right),
        ("the till's, ahead", right, off),
        ("the till's, behind", right, -off),
    ] {
        let world = World::new();
        world.sell("2016-12-03", 1000..1003);
        world.sell("2017-05-08", 1..5);
        world.sell("2017-05-10", 10..13);
        world.backfill("2016-12-01", "2016-12-05");
        cycle(&world, "2017-05-10T16:00:00Z", right, right);
        world.ingest();
        cycle(&world, "2017-05-10T16:30:00Z", right, right);
        let sent = world.manifests().len();
        // A day with the wrong clock, in which the till sells on and a void comes in.
        for hour in ["17", "20", "23"] {
            world.sell("2017-05-10", hour.parse::<u32>().unwrap() * 10..hour.parse::<u32>().unwrap() * 10 + 2);
            cycle(&world, &format!("2017-05-10T{hour}:00:00Z"), agent_off, till_off);
            world.ingest();
        }
        let open: Vec<bool> = world
            .manifests()
            .iter()
            .flat_map(|one| &one.units)
            .filter(|facts| facts.unit >= day("2017-05-10"))
            .map(|facts| facts.closed)
            .collect();
        assert!(open.iter().all(|closed| !closed), "{name}: no day was closed before it was over: {open:?}");
        // Right again: what was sold meanwhile is there, and what was proven is still known.
        world.sql("DELETE FROM lineas WHERE ticket = 2");
        for at in ["2017-05-11T12:00:00Z", "2017-05-11T13:00:00Z", "2017-05-11T14:00:00Z"] {
            cycle(&world, at, right, right);
            world.ingest();
        }
        let lake = world.lake();
        let rows = |date: &str| lake[&day(date)].0;
        assert_eq!((rows("2016-12-03"), rows("2017-05-08"), rows("2017-05-10")), (3, 3, 9), "{name}");
        let agent = world.start().unwrap();
        let known = agent.journal.all_units(&"s1".parse().unwrap(), &"ventas".parse().unwrap()).unwrap();
        for date in days("2016-12-01", "2016-12-05").iter().chain(days("2017-05-03", "2017-05-10").iter()) {
            let row =
                known.get(&ribera_storage::Unit::Day(date)).unwrap_or_else(|| panic!("{name}: {date} is forgotten"));
            assert!(row.proven && row.closed, "{name}: {date}");
        }
        let more = world.manifests().len() - sent;
        assert!(more < 40, "{name}: {more} batches for a day's sales");
        let last = cycle(&world, "2017-05-11T15:00:00Z", right, right);
        assert_eq!(
            (last.exit_code, last.datasets[0].batches, last.upload.waiting),
            (0, 0, 0),
            "{name}: {:?}",
            last.problems
        );
    }
}

#[test]
fn facts_outlive_the_spool_and_are_forgotten_by_the_object_stores_clock_alone() {
    let mut world = World::new();
    world.config.limits.facts_days = 31;
    world.sell("2017-04-03", 1..5);
    world.backfill("2017-04-03", "2017-04-03");
    world.ingest();
    world.once();
    world.ingest();
    world.once();
    assert!(ribera_agent::ports::SpoolDisk::list(&world.disk).unwrap().is_empty(), "the spool is pruned");
    let known = |world: &World| {
        let agent = world.start().unwrap();
        let units = agent.journal.all_units(&"s1".parse().unwrap(), &"ventas".parse().unwrap()).unwrap();
        units.get(&day("2017-04-03")).map(|row| row.facts.rows)
    };
    assert_eq!(known(&world), Some(4));
    let right = SignedDuration::ZERO;
    cycle(&world, "2017-05-20T16:00:00Z", SignedDuration::from_hours(400 * 24), right);
    world.ingest();
    cycle(&world, "2017-05-20T16:30:00Z", right, right);
    assert_eq!(known(&world), Some(4), "the agent's own clock was far ahead");
    world.ingest();
    // 31 days after it was extracted it is gone.
    cycle(&world, "2017-06-10T15:59:00Z", right, right);
    assert_eq!(known(&world), Some(4));
    cycle(&world, "2017-06-10T16:01:00Z", right, right);
    assert_eq!(known(&world), None);
}

#[test]
fn a_sources_own_clock_that_is_off_is_told_in_report_heartbeat_and_log() {
    let told = |source_now: &'static str| {
        let responder = tds_responder::respond_all(false, move |request| {
            if request.sql == "SELECT SYSUTCDATETIME()" {
                let columns = [(String::new(), tds::Type::of("datetime2(7)"))];
                return Some(Reply::Tokens(tds::result(&columns, &[vec![Some(source_now.to_owned())]]), 1));
            }
            None
        });
        let config = sqlserver::store(responder.port, "tienda", "off") + sqlserver::BY_HAND;
        let world = World::with_config(&config);
        let agent = world.start().unwrap();
        let report = run(&agent, RunMode::Cycle);
        block_on(agent.beat(&[])).unwrap();
        let heartbeat = world.object("agents/s1/heartbeat.json").unwrap();
        let heartbeat: serde_json::Value = serde_json::from_slice(&heartbeat).unwrap();
        (report.datasets[0].source_clock_offset_s, heartbeat)
    };
    let (offset, heartbeat) = told("2017-05-10T15:58:00");
    assert_eq!((offset, heartbeat["source_clock_offset_s"].as_i64()), (Some(-120), Some(-120)));
    assert!(!heartbeat["log_tail"].to_string().contains("clock"), "{heartbeat}");
    let (offset, heartbeat) = told("2017-05-07T16:00:00");
    assert_eq!((offset, heartbeat["source_clock_offset_s"].as_i64()), (Some(-3 * 86_400), Some(-3 * 86_400)));
    assert!(heartbeat["log_tail"].to_string().contains("store s1: the source's clock is 3 d behind"), "{heartbeat}");
}

#[test]
fn check_says_that_the_sources_own_clock_is_off() {
    let folder = tempfile::tempdir().unwrap();
    // Its clock stands in 2017.
    let responder = tds_responder::respond(false, |_| Reply::Tokens(Vec::new(), 0));
    let config = sqlserver::store(responder.port, "tienda", "off") + sqlserver::BY_HAND;
    std::fs::write(folder.path().join("agent.toml"), config).unwrap();
    let checked = |lang: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ribera-agent"))
            .arg("--config")
            .arg(folder.path().join("agent.toml"))
            .args(["check", "--lang", lang])
            .env("CLAVE", "secret")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (spanish, english) = (checked("es"), checked("en"));
    assert!(spanish.contains("el reloj de la fuente está") && spanish.contains(" d atrasado"), "{spanish}");
    assert!(english.contains("the source's clock is") && english.contains(" d behind"), "{english}");
}
