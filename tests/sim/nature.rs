//! What happens to stores: sales, late changes, and misfortunes of machines and lines.

use std::rc::Rc;

use jiff::ToSpan;
use jiff::civil::Date;

use super::cloud::Cloud;
use super::kernel::{DAY, GroupId, HOUR, MINUTE, Micros};
use super::machine::Machine;
use super::pos::Pos;
use super::tally::Fault;

/// One misfortune of a machine.
type Strike = fn(&Rc<Cloud>, &Rc<Machine>);

/// A change of the store's database to come.
#[derive(Debug, Clone, Copy)]
enum Change {
    Sell,
    Return,
    Void,
    Correct,
    VoidAll,
}

/// Days after its own on which a day may still change: one less than the agents look back.
pub const LATE_DAYS_MAX: i64 = 3;

/// The life of one store from `first` for `days` business days, nothing after `end`.
pub fn live(cloud: &Rc<Cloud>, group: GroupId, pos: &Rc<Pos>, first: Date, days: u32, end: Micros) {
    let mut changes = Vec::new();
    for offset in 0..days {
        let day = first.checked_add(i64::from(offset).days()).expect("a date");
        plan_day(cloud, pos, day, &mut changes);
    }
    changes.retain(|(at, _, _)| *at < end);
    changes.sort_by_key(|(at, _, _)| *at);
    let (sim, pos) = (cloud.sim.clone(), Rc::clone(pos));
    cloud.sim.spawn(group, async move {
        for (at, day, change) in changes {
            sim.sleep(at - sim.now()).await;
            match change {
                Change::Sell => pos.sell(day, false),
                Change::Return => pos.sell(day, true),
                Change::Void => pos.void_one(day),
                Change::Correct => pos.correct_one(day),
                Change::VoidAll => pos.void_all(day),
            }
        }
    });
}

fn plan_day(cloud: &Cloud, pos: &Pos, day: Date, changes: &mut Vec<(Micros, Date, Change)>) {
    let chance = cloud.sim.chance();
    // A day off, or a day on which nobody came: the source says so by saying nothing.
    if !pos.definition.expects(day) || chance.percent(5) {
        return;
    }
    let zone = pos.definition.zone().expect("a zone");
    let midnight = zone.to_timestamp(day.to_datetime(jiff::civil::Time::midnight())).expect("a time").as_microsecond();
    for _ in 0..chance.between(1, 5) {
        let change = if chance.percent(10) { Change::Return } else { Change::Sell };
        changes.push((midnight + chance.between(9 * HOUR, 22 * HOUR), day, change));
    }
    if chance.percent(35) {
        for _ in 0..chance.between(1, 3) {
            let change = match chance.below(100) {
                0..40 => Change::Sell,
                40..55 => Change::Return,
                55..75 => Change::Void,
                75..96 => Change::Correct,
                _ => Change::VoidAll,
            };
            changes.push((midnight + chance.between(20 * HOUR, LATE_DAYS_MAX * DAY), day, change));
        }
    }
}

/// How many misfortunes of a kind befall a world of 50 stores in 7 days; scaled for others.
#[derive(Debug, Clone)]
pub struct Misfortunes {
    pub lines_down: u64,
    pub journals_restored: u64,
    pub disks_cloned: u64,
    pub spools_damaged: u64,
    pub clock_jumps: u64,
    /// Machines whose clock is off from the start, in a hundred.
    pub clocks_off_percent: u64,
}

impl Default for Misfortunes {
    fn default() -> Self {
        Self {
            lines_down: 60,
            journals_restored: 4,
            disks_cloned: 4,
            spools_damaged: 12,
            clock_jumps: 6,
            clocks_off_percent: 15,
        }
    }
}

/// Spreads misfortunes over `start..end`.
pub fn befall(
    cloud: &Rc<Cloud>,
    group: GroupId,
    machines: &[Rc<Machine>],
    misfortunes: &Misfortunes,
    start: Micros,
    end: Micros,
) {
    let chance = cloud.sim.chance();
    for machine in machines {
        if chance.percent(misfortunes.clocks_off_percent) {
            machine.clock_off.set(clock_error(cloud));
            cloud.count(Fault::ClockOff);
        }
    }
    let share = |count: u64| (count * machines.len() as u64 * ((end - start) / DAY).unsigned_abs()).div_ceil(50 * 8);
    let kinds: [(u64, Strike); 5] = [
        (misfortunes.lines_down, line_down),
        (misfortunes.journals_restored, journal_restored),
        (misfortunes.disks_cloned, disk_cloned),
        (misfortunes.spools_damaged, spool_damaged),
        (misfortunes.clock_jumps, clock_jumps),
    ];
    for (count, strike) in kinds {
        for _ in 0..share(count) {
            let at = chance.between(start + 6 * HOUR, end - HOUR);
            let machine = Rc::clone(chance.pick(machines));
            let cloud2 = Rc::clone(cloud);
            cloud.sim.spawn(group, async move {
                cloud2.sim.sleep(at - cloud2.sim.now()).await;
                if cloud2.is_faulty() {
                    strike(&cloud2, &machine);
                }
            });
        }
    }
}

fn clock_error(cloud: &Cloud) -> Micros {
    let chance = cloud.sim.chance();
    let size = if chance.percent(70) { chance.between(MINUTE, 3 * HOUR) } else { chance.between(HOUR, 3 * DAY) };
    if chance.percent(50) { -size } else { size }
}

fn line_down(cloud: &Rc<Cloud>, machine: &Rc<Machine>) {
    let until = cloud.sim.now() + cloud.sim.chance().between(30 * MINUTE, 18 * HOUR);
    machine.program.line_down_until.set(until);
    cloud.count(Fault::LineDown);
    cloud.sim.trace(&format!("{} line down", machine.program.name));
}

/// An image is taken now and comes back hours or days later.
fn journal_restored(cloud: &Rc<Cloud>, machine: &Rc<Machine>) {
    machine.take_image();
    let (cloud2, machine) = (Rc::clone(cloud), Rc::clone(machine));
    let group = cloud.sim.new_group(|_| {});
    cloud.sim.spawn(group, async move {
        cloud2.sim.sleep(cloud2.sim.chance().between(HOUR, 2 * DAY)).await;
        if cloud2.is_faulty() {
            machine.restore_image();
        }
    });
}

fn disk_cloned(cloud: &Rc<Cloud>, machine: &Rc<Machine>) {
    machine.run_clone(cloud.sim.chance().between(HOUR, 24 * HOUR));
    cloud.count(Fault::DiskCloned);
}

fn spool_damaged(cloud: &Rc<Cloud>, machine: &Rc<Machine>) {
    let fault = if cloud.sim.chance().percent(50) { Fault::SpoolCut } else { Fault::SpoolBitFlipped };
    // Damage needs a file: wait for one.
    let (cloud2, machine) = (Rc::clone(cloud), Rc::clone(machine));
    let group = cloud.sim.new_group(|_| {});
    cloud.sim.spawn(group, async move {
        for _ in 0..5_000 {
            if !cloud2.is_faulty() || machine.disk.damage(fault) {
                return;
            }
            cloud2.sim.sleep(20 * super::kernel::SECOND).await;
        }
    });
}

fn clock_jumps(cloud: &Rc<Cloud>, machine: &Rc<Machine>) {
    machine.clock_off.set(clock_error(cloud));
    cloud.count(Fault::ClockJumps);
    cloud.sim.trace(&format!("{} clock jumps to {}", machine.program.name, machine.clock_off.get()));
}
