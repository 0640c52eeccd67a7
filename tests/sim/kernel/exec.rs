//! The executor: virtual clock, timers, tasks in groups, death at a step.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::{Chance, Micros, Trace};

pub type TaskId = u64;
/// Tasks that live and die together: one program on one machine.
pub type GroupId = u32;

/// A handle on the world; clones share it.
#[derive(Clone)]
pub struct Sim(Rc<Inner>);

type OnDeath = Rc<dyn Fn(&Sim)>;
type Task = (GroupId, Pin<Box<dyn Future<Output = ()>>>);

struct Inner {
    now: Cell<Micros>,
    seed: u64,
    chance: Chance,
    trace: RefCell<Trace>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    ready: Arc<Mutex<Vec<TaskId>>>,
    /// By time, then by a drawn number: equal times fire in a random order.
    timers: RefCell<BTreeMap<(Micros, u64), Waker>>,
    next_task: Cell<TaskId>,
    next_group: Cell<GroupId>,
    alive: RefCell<BTreeMap<GroupId, OnDeath>>,
    polls: Cell<u64>,
}

/// The payload that unwinds the future whose group dies at this very step.
struct Killed(GroupId);

impl Sim {
    pub fn new(seed: u64, start: Micros, print_trace: bool) -> Self {
        Self(Rc::new(Inner {
            now: Cell::new(start),
            seed,
            chance: Chance::new(seed),
            trace: RefCell::new(Trace::new(print_trace)),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            next_task: Cell::new(1),
            next_group: Cell::new(1),
            alive: RefCell::default(),
            polls: Cell::new(0),
        }))
    }

    pub fn now(&self) -> Micros {
        self.0.now.get()
    }

    pub fn chance(&self) -> &Chance {
        &self.0.chance
    }

    /// A source of randomness that belongs to `name` alone.
    pub fn chance_of(&self, name: &str) -> Rc<Chance> {
        Rc::new(Chance::of(self.0.seed, name))
    }

    pub fn trace(&self, what: &str) {
        self.0.trace.borrow_mut().event(self.now(), what);
    }

    /// Hash of everything traced so far, and the number of events.
    pub fn digest(&self) -> (u64, u64) {
        let trace = self.0.trace.borrow();
        (trace.digest(), trace.events())
    }

    pub fn trace_tail(&self) -> Vec<String> {
        self.0.trace.borrow().tail()
    }

    /// Times a future was polled.
    pub fn polls(&self) -> u64 {
        self.0.polls.get()
    }

    /// A new group; `on_death` runs once, after its tasks are gone.
    pub fn new_group(&self, on_death: impl Fn(&Self) + 'static) -> GroupId {
        let group = self.0.next_group.replace(self.0.next_group.get() + 1);
        self.0.alive.borrow_mut().insert(group, Rc::new(on_death));
        group
    }

    pub fn is_alive(&self, group: GroupId) -> bool {
        self.0.alive.borrow().contains_key(&group)
    }

    pub fn spawn(&self, group: GroupId, future: impl Future<Output = ()> + 'static) -> TaskId {
        let id = self.0.next_task.replace(self.0.next_task.get() + 1);
        self.0.tasks.borrow_mut().insert(id, (group, Box::pin(future)));
        locked(&self.0.ready).push(id);
        id
    }

    /// Whether `task` has neither ended nor died.
    pub fn is_running(&self, task: TaskId) -> bool {
        self.0.tasks.borrow().contains_key(&task)
    }

    /// Kills `group` from outside. The caller must not be one of its tasks: see [`Self::die`].
    pub fn kill(&self, group: GroupId) {
        let Some(on_death) = self.0.alive.borrow_mut().remove(&group) else { return };
        let dead: Vec<TaskId> =
            self.0.tasks.borrow().iter().filter(|(_, (of, _))| *of == group).map(|(id, _)| *id).collect();
        for id in dead {
            // Dropped outside the borrow: destructors may call back.
            let task = self.0.tasks.borrow_mut().remove(&id);
            drop(task);
        }
        on_death(self);
    }

    /// Ends one task from outside, as a host ends one call.
    pub fn abort(&self, task: TaskId) {
        let task = self.0.tasks.borrow_mut().remove(&task);
        drop(task);
    }

    /// Ends the world: every task is dropped, whatever it waited for. Without this the tasks and
    /// what they hold of the world keep each other in memory.
    pub fn shut_down(&self) {
        self.0.alive.borrow_mut().clear();
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        drop(tasks);
        self.0.timers.borrow_mut().clear();
    }

    /// Kills the group of the running task here and now: nothing after this line runs in it.
    pub fn die(&self, group: GroupId) -> ! {
        resume_unwind(Box::new(Killed(group)))
    }

    /// Comes back after `span` of virtual time.
    pub fn sleep(&self, span: Micros) -> Sleep {
        Sleep { sim: self.clone(), until: self.now() + span.max(0), key: None }
    }

    /// Lets any other ready task run first.
    pub async fn pause(&self) {
        self.sleep(0).await;
    }

    /// Runs until `deadline`, or until nothing is left to do. An error is a panic of a task.
    pub fn run_until(&self, deadline: Micros) -> Result<(), String> {
        loop {
            self.run_ready()?;
            let next = self.0.timers.borrow().keys().next().copied();
            match next {
                Some(key) if key.0 <= deadline => {
                    self.0.now.set(self.now().max(key.0));
                    if let Some(waker) = self.0.timers.borrow_mut().remove(&key) {
                        waker.wake();
                    }
                }
                _ => {
                    self.0.now.set(self.now().max(deadline));
                    return Ok(());
                }
            }
        }
    }

    /// Runs `future` in a group of its own until it ends, and everything else beside it.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Result<T, String> {
        let group = self.new_group(|_| {});
        let answer = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&answer);
        let task = self.spawn(group, async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        });
        self.run_ready()?;
        while self.is_running(task) {
            let next = self.0.timers.borrow().keys().next().map(|key| key.0);
            let next = next.ok_or("deadlock: a task waits and no timer is set")?;
            self.run_until(next)?;
        }
        let value = answer.borrow_mut().take();
        value.ok_or_else(|| "the task was killed".to_owned())
    }

    fn run_ready(&self) -> Result<(), String> {
        loop {
            let id = {
                let mut ready = locked(&self.0.ready);
                if ready.is_empty() {
                    return Ok(());
                }
                let index = self.chance().index(ready.len());
                ready.swap_remove(index)
            };
            self.poll(id)?;
        }
    }

    fn poll(&self, id: TaskId) -> Result<(), String> {
        let Some((group, mut future)) = self.0.tasks.borrow_mut().remove(&id) else { return Ok(()) };
        self.0.polls.set(self.0.polls.get() + 1);
        let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.0.ready) }));
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) if self.is_alive(group) => {
                self.0.tasks.borrow_mut().insert(id, (group, future));
            }
            Ok(Poll::Pending) => {}
            Err(payload) => {
                drop(future);
                match payload.downcast::<Killed>() {
                    Ok(killed) => self.kill(killed.0),
                    Err(panic) => return Err(format!("panic: {}", panic_text(panic.as_ref()))),
                }
            }
        }
        Ok(())
    }
}

/// See [`Sim::sleep`].
pub struct Sleep {
    sim: Sim,
    until: Micros,
    key: Option<(Micros, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(key) = self.key
            && !self.sim.0.timers.borrow().contains_key(&key)
        {
            return Poll::Ready(());
        }
        let key = match self.key {
            Some(key) => key,
            None => (self.until, self.sim.chance().next_u64()),
        };
        self.sim.0.timers.borrow_mut().insert(key, context.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.sim.0.timers.borrow_mut().remove(&key);
        }
    }
}

struct TaskWaker {
    id: TaskId,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = locked(&self.ready);
        if !ready.contains(&self.id) {
            ready.push(self.id);
        }
    }
}

fn locked(ready: &Mutex<Vec<TaskId>>) -> MutexGuard<'_, Vec<TaskId>> {
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interleaving(seed: u64) -> (Vec<u32>, u64) {
        let sim = Sim::new(seed, 0, false);
        let group = sim.new_group(|_| {});
        let order = Rc::new(RefCell::new(Vec::new()));
        for name in 0..4_u32 {
            let (sim2, order) = (sim.clone(), Rc::clone(&order));
            sim.spawn(group, async move {
                for _ in 0..5 {
                    sim2.sleep(sim2.chance().between(0, 3)).await;
                    order.borrow_mut().push(name);
                    sim2.trace(&name.to_string());
                }
            });
        }
        sim.run_until(1000).unwrap();
        (order.borrow().clone(), sim.digest().0)
    }

    #[test]
    fn the_same_seed_gives_the_same_order_and_another_seed_another() {
        assert_eq!(interleaving(7), interleaving(7));
        assert_ne!(interleaving(7).0, interleaving(8).0);
        assert_eq!(interleaving(7).0.len(), 20);
    }

    #[test]
    fn a_group_that_dies_at_a_step_loses_its_tasks_and_no_others() {
        let sim = Sim::new(1, 0, false);
        let died = Rc::new(Cell::new(0));
        let seen = Rc::clone(&died);
        let doomed = sim.new_group(move |_| seen.set(seen.get() + 1));
        let other = sim.new_group(|_| {});
        let count = Rc::new(Cell::new(0));
        for group in [doomed, doomed, other] {
            let (sim2, count) = (sim.clone(), Rc::clone(&count));
            sim.spawn(group, async move {
                sim2.sleep(10).await;
                if group == doomed {
                    sim2.die(doomed);
                }
                count.set(count.get() + 1);
            });
        }
        sim.run_until(100).unwrap();
        assert_eq!((died.get(), count.get(), sim.is_alive(doomed)), (1, 1, false));
    }

    #[test]
    fn a_panic_of_the_code_under_test_is_an_error_of_the_run() {
        let sim = Sim::new(1, 0, false);
        let group = sim.new_group(|_| {});
        sim.spawn(group, async { panic!("boom") });
        assert_eq!(sim.run_until(1).unwrap_err(), "panic: boom");
    }

    #[test]
    fn virtual_time_passes_without_waiting() {
        let sim = Sim::new(1, 0, false);
        let sim2 = sim.clone();
        let slept = sim.block_on(async move {
            sim2.sleep(super::super::DAY).await;
            sim2.now()
        });
        assert_eq!(slept.unwrap(), super::super::DAY);
    }
}
