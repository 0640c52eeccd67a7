//! A store's back-office PC: disk, journal, clock, and the agent that runs on it, dies and comes
//! back; sometimes from an old image, sometimes twice.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::civil::Date;
use ribera_agent::agent::{Agent, Ports, ServedStore};
use ribera_agent::calendar::Days;
use ribera_agent::config::Config;
use ribera_agent::journal::Journal;
use ribera_agent::ports::{FailPoints, NoFailPoints, Timer};
use ribera_agent::run::collect::{Request, RunMode};
use ribera_storage::Result;
use ribera_storage::dataset::DatasetDefinition;
use rusqlite::{Connection, OpenFlags};

use super::cloud::{Cloud, Program, SimStore};
use super::disk::SimDisk;
use super::host::{SimClock, SimRandom};
use super::kernel::{HOUR, MINUTE, Micros, SECOND, Sim};
use super::lake::LakeModel;
use super::pos::Pos;
use super::source::{AUDIT, EXTRACT, SimSource};
use super::tally::Fault;

/// How often an idle agent looks whether anything is due.
pub const LOOK_EVERY: Micros = 10 * HOUR;

pub struct Machine {
    pub cloud: Rc<Cloud>,
    lake: Rc<LakeModel>,
    pub program: Rc<Program>,
    pub disk: SimDisk,
    /// Added to true time by this machine's clock.
    pub clock_off: Rc<Cell<Micros>>,
    pos: Rc<Pos>,
    config: Config,
    journal: JournalFile,
    image: RefCell<Option<(SimDisk, JournalFile)>>,
    clones: RefCell<Vec<Rc<Machine>>>,
    /// A clone that was switched off does not come back.
    scrapped: Cell<bool>,
    is_punctual: bool,
    /// Since faults stopped a whole cycle, begun since, came to its end without a problem.
    has_looked: Cell<bool>,
    /// Faults have stopped.
    is_calm: Cell<bool>,
    /// Days that an operator has asked for again.
    asked: RefCell<Vec<Date>>,
}

impl Machine {
    pub fn new(cloud: &Rc<Cloud>, lake: &Rc<LakeModel>, pos: &Rc<Pos>, dataset: &DatasetDefinition) -> Rc<Self> {
        let config = toml::from_str(&config_text(pos, dataset)).expect("the agent's configuration");
        let program = Program::new(&cloud.sim, pos.store.as_str(), "agent", Some(Fault::AgentCrash));
        Rc::new(Self {
            cloud: Rc::clone(cloud),
            lake: Rc::clone(lake),
            program: Rc::clone(&program),
            disk: SimDisk::new(cloud),
            clock_off: Rc::default(),
            pos: Rc::clone(pos),
            config,
            journal: JournalFile::new(),
            image: RefCell::default(),
            clones: RefCell::default(),
            scrapped: Cell::new(false),
            is_punctual: program.chance.percent(80),
            has_looked: Cell::new(false),
            is_calm: Cell::new(false),
            asked: RefCell::default(),
        })
    }

    /// Switches the machine on; it comes back by itself after each crash.
    pub fn start(self: &Rc<Self>) {
        let sim = &self.cloud.sim;
        let me = Rc::clone(self);
        let group = sim.new_group(move |sim| me.died(sim));
        self.program.group.set(group);
        let me = Rc::clone(self);
        sim.spawn(group, async move {
            // At the next boot of a fleet not everyone is first.
            me.cloud.sim.sleep(me.program.chance.between(0, 10 * MINUTE)).await;
            me.run_agent().await;
            me.cloud.sim.trace(&format!("{} ended", me.program.name));
        });
    }

    /// Switches the machine off for good.
    pub fn scrap(&self) {
        self.scrapped.set(true);
        self.cut_power();
    }

    /// Faults have stopped: clones are found and switched off.
    pub fn calm(&self) {
        self.is_calm.set(true);
        self.clones.borrow().iter().for_each(|clone| clone.scrap());
    }

    /// What `ribera-agent extract --force` does, at the agent's next turn; a whole look follows.
    pub fn ask_for(&self, day: Date) {
        self.asked.borrow_mut().push(day);
        self.has_looked.set(false);
    }

    /// The agent has looked at all it must look at since faults stopped.
    pub fn has_looked(&self) -> bool {
        self.has_looked.get() && self.asked.borrow().is_empty()
    }

    /// Keeps a copy of disk and journal as they are.
    pub fn take_image(&self) {
        *self.image.borrow_mut() = Some((self.disk.image(), self.journal.copy()));
    }

    /// Comes back as the image was: its journal no longer knows what it sent since.
    pub fn restore_image(self: &Rc<Self>) {
        let Some((disk, journal)) = self.image.borrow_mut().take() else { return };
        self.cloud.sim.trace(&format!("{} restored from an image", self.program.name));
        self.cloud.count(Fault::JournalRestored);
        self.cut_power();
        self.disk.restore(&disk);
        self.journal.restore(&journal);
    }

    /// A copy of the disk is started elsewhere and runs for `span` beside this one.
    pub fn run_clone(self: &Rc<Self>, span: Micros) {
        let sim = self.cloud.sim.clone();
        sim.trace(&format!("{} cloned for {} h", self.program.name, span / HOUR));
        let clone = Rc::new(Self {
            cloud: Rc::clone(&self.cloud),
            lake: Rc::clone(&self.lake),
            program: Program::new(
                &sim,
                format!("{}-clone-{}", self.program.name, sim.now()),
                "agent",
                Some(Fault::AgentCrash),
            ),
            disk: self.disk.image(),
            clock_off: Rc::default(),
            pos: Rc::clone(&self.pos),
            config: self.config.clone(),
            journal: self.journal.copy(),
            image: RefCell::default(),
            clones: RefCell::default(),
            scrapped: Cell::new(false),
            is_punctual: self.is_punctual,
            has_looked: Cell::new(false),
            is_calm: Cell::new(false),
            asked: RefCell::default(),
        });
        clone.start();
        self.clones.borrow_mut().push(Rc::clone(&clone));
        let group = sim.new_group(|_| {});
        self.cloud.sim.spawn(group, async move {
            sim.sleep(span).await;
            clone.scrap();
        });
    }

    /// Nothing waits in spool or journal.
    pub fn is_drained(&self) -> bool {
        self.disk.file_count() == 0 && self.open_batches().is_empty()
    }

    /// What waits, for people.
    pub fn waiting(&self) -> String {
        format!("{}: files {:?}, batches {:?}", self.program.name, self.disk.file_names(), self.open_batches())
    }

    fn open_batches(&self) -> Vec<String> {
        let journal = Journal::open(self.journal.open(), &self.random(), Rc::new(NoFailPoints));
        match journal.and_then(|journal| journal.open_batches()) {
            Ok(batches) => batches.iter().map(|one| format!("{} {}", one.manifest.batch, one.state.as_str())).collect(),
            Err(error) => vec![format!("journal: {error}")],
        }
    }

    fn cut_power(&self) {
        self.disk.power(false);
        self.cloud.sim.kill(self.program.group.get());
        self.disk.power(true);
    }

    /// What the journal says is spooled survives a power cut.
    fn check_durable(&self) {
        let open = Journal::open(self.journal.open(), &self.random(), Rc::new(NoFailPoints))
            .and_then(|journal| journal.open_batches());
        let open = match open {
            Ok(open) => open,
            Err(error) => return self.lake.fail(format!("{}: journal after a crash: {error:?}", self.program.name)),
        };
        for batch in &open {
            self.cloud.tally.borrow_mut().check("I1 what the journal has survives a crash");
            if !self.disk.kept(&batch.file, batch.bytes) {
                self.lake.fail(format!(
                    "I1 what the journal has survives a crash: {}: file {} of a {} batch",
                    self.program.name,
                    batch.file,
                    batch.state.as_str()
                ));
            }
        }
    }

    fn died(self: &Rc<Self>, sim: &Sim) {
        if self.scrapped.get() {
            return;
        }
        if self.cloud.is_faulty() {
            self.disk.crash();
            self.check_durable();
        }
        let me = Rc::clone(self);
        let nursery = sim.new_group(|_| {});
        let down = sim.chance().between(SECOND, if sim.chance().percent(10) { 10 * HOUR } else { HOUR });
        sim.spawn(nursery, async move {
            me.cloud.sim.sleep(down).await;
            me.start();
        });
    }

    /// What `ribera-agent run` does, at a slower pace: schedules and answers are looked at every
    /// few hours instead of every few seconds.
    async fn run_agent(self: &Rc<Self>) {
        let steps = Rc::new(SimSteps(Rc::clone(self)));
        let journal = match Journal::open(self.journal.open(), &self.random(), steps.clone()) {
            Ok(journal) => journal,
            Err(error) => return self.cloud.sim.trace(&format!("{} journal: {error:?}", self.program.name)),
        };
        let ports = Ports {
            objects: SimStore::new(&self.cloud, &self.program),
            clock: Rc::new(SimClock::new(&self.cloud.sim, Rc::clone(&self.clock_off))),
            random: Rc::new(self.random()),
            timer: Rc::new(SimTimer(self.cloud.sim.clone())),
            disk: Rc::new(self.disk.clone()),
            fail_points: steps,
        };
        let source = SimSource { cloud: Rc::clone(&self.cloud), pos: Rc::clone(&self.pos) };
        let served = ServedStore { config: self.config.stores[0].clone(), source: Box::new(source) };
        let agent = match Agent::start(self.config.clone(), ports, journal, vec![served]) {
            Ok(agent) => agent,
            Err(error) => return self.cloud.sim.trace(&format!("{} start: {error:?}", self.program.name)),
        };
        let request = Request { ask: RunMode::Due, stores: Vec::new(), datasets: Vec::new() };
        loop {
            let is_calm = self.is_calm.get();
            self.extract_asked(&agent).await;
            let report = agent.run("run", &request, Duration::ZERO).await;
            for problem in &report.problems {
                self.cloud.sim.trace(&format!("{} problem {}", self.program.name, problem.message));
            }
            if let Err(error) = agent.beat(&[]).await {
                self.cloud.sim.trace(&format!("{} heartbeat {error}", self.program.name));
            }
            if is_calm && report.problems.is_empty() && !report.datasets.is_empty() {
                self.has_looked.set(true);
            }
            let waiting = report.upload.waiting > 0;
            self.wait_for_turn(if waiting { HOUR } else { LOOK_EVERY }).await;
        }
    }

    async fn extract_asked(&self, agent: &Agent<SimStore>) {
        let asked = self.asked.take();
        for day in asked {
            let ask = RunMode::Extract { days: Days { from: day, to: day }, force: true };
            let request = Request { ask, stores: Vec::new(), datasets: Vec::new() };
            let report = agent.run("extract", &request, Duration::ZERO).await;
            if !report.problems.is_empty() {
                self.ask_for(day);
            }
        }
    }

    /// Most machines of a chain look at the same minutes, so that batches come in bursts.
    async fn wait_for_turn(&self, every: Micros) {
        let (sim, chance) = (&self.cloud.sim, &self.program.chance);
        let pause = if self.is_punctual {
            every - sim.now().rem_euclid(every) + chance.between(0, 30 * SECOND)
        } else {
            chance.between(every / 2, every * 3 / 2)
        };
        sim.sleep(pause).await;
    }

    fn random(&self) -> SimRandom {
        SimRandom(Rc::clone(&self.program.chance))
    }
}

/// The journal's database: in memory, and there as long as this handle, whatever programs die.
/// What a dead program had not committed is rolled back with its connection.
struct JournalFile {
    uri: String,
    keeper: RefCell<Connection>,
}

impl JournalFile {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        // Names are shared by all worlds of this process; they never reach a trace.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let uri = format!("file:journal-{}?mode=memory&cache=shared", NEXT.fetch_add(1, Ordering::Relaxed));
        let keeper = connect(&uri);
        Self { uri, keeper: RefCell::new(keeper) }
    }

    fn open(&self) -> Connection {
        connect(&self.uri)
    }

    fn copy(&self) -> Self {
        let copy = Self::new();
        copy.restore(self);
        copy
    }

    fn restore(&self, image: &Self) {
        let (from, mut to) = (image.keeper.borrow(), self.keeper.borrow_mut());
        let backup = rusqlite::backup::Backup::new(&from, &mut to).expect("a backup");
        backup.run_to_completion(10_000, Duration::ZERO, None).expect("a backup");
    }
}

fn connect(uri: &str) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags).expect("a database in memory")
}

/// Dies at the step instead of returning an error, as a process does.
struct SimSteps(Rc<Machine>);

impl FailPoints for SimSteps {
    fn hit(&self, step: &'static str) -> Result<()> {
        self.0.cloud.step(&self.0.program, &format!("agent {step}"));
        Ok(())
    }
}

struct SimTimer(Sim);

impl Timer for SimTimer {
    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.0.sleep(i64::try_from(duration.as_micros()).unwrap_or(HOUR)))
    }
}

fn config_text(pos: &Pos, dataset: &DatasetDefinition) -> String {
    format!(
        r#"
        folder = "/simulated"
        [object_store]
        folder = "/simulated"
        [limits]
        upload_tries = 3
        [[store]]
        id = "{}"
        adapter = "pos"
        source = {{ kind = "sqlite", path = "/simulated" }}
        [adapter.pos.{}]
        extract = "{EXTRACT}"
        audit = "{AUDIT}"
        "#,
        pos.store, dataset.name
    )
}
