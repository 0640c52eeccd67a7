//! A store that fails on purpose, for tests and simulation: errors before the effect, errors
//! after it, puts that land long after their error, and calls that take turns with other tasks.
//! The same seed gives the same faults in the same order.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;

use super::{ObjectMeta, ObjectPath, ObjectStore, Part, PutBody, PutOutcome};
use crate::error::{Error, Result};

/// How often, of 1,000 calls each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The call fails and did nothing.
    pub error_permille: u64,
    /// The call fails though it had its effect.
    pub error_after_permille: u64,
    /// A put fails, and lands some calls later.
    pub late_put_permille: u64,
    /// Turns given to other tasks before a call, at most.
    pub yields_max: u64,
}

/// How often each kind of fault fired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fired {
    pub calls: u64,
    pub errors: u64,
    pub errors_after: u64,
    pub late_puts: u64,
}

/// Clones share faults and counts, not with other seeds.
#[derive(Debug, Clone)]
pub struct FaultyStore<S> {
    inner: S,
    state: Rc<RefCell<State>>,
}

#[derive(Debug)]
struct State {
    random: u64,
    faults: Faults,
    fired: Fired,
    /// Puts on their way: calls still to wait, what to put.
    late: Vec<(u64, ObjectPath, PutBody)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Before,
    After,
    Late,
}

impl<S: ObjectStore> FaultyStore<S> {
    pub fn new(inner: S, seed: u64, faults: Faults) -> Self {
        let state = State { random: seed, faults, fired: Fired::default(), late: Vec::new() };
        Self { inner, state: Rc::new(RefCell::new(state)) }
    }

    /// Changes what fails from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }

    pub fn fired(&self) -> Fired {
        self.state.borrow().fired
    }

    /// Lands every put that is still on its way.
    ///
    /// # Errors
    ///
    /// Of the store inside.
    pub async fn settle(&self) -> Result<()> {
        let late = std::mem::take(&mut self.state.borrow_mut().late);
        for (_, path, body) in late {
            self.inner.put_if_absent(&path, body).await?;
        }
        Ok(())
    }

    async fn before(&self, can_be_late: bool) -> Result<Fault> {
        let (fault, yields, due) = self.state.borrow_mut().next(can_be_late);
        for (_, path, body) in due {
            self.inner.put_if_absent(&path, body).await?;
        }
        for _ in 0..yields {
            yield_once().await;
        }
        match fault {
            Fault::Before => Err(injected("before")),
            fault => Ok(fault),
        }
    }

    fn after<T>(fault: Fault, result: Result<T>) -> Result<T> {
        match fault {
            Fault::After => result.and_then(|_| Err(injected("after"))),
            _ => result,
        }
    }
}

impl State {
    fn next(&mut self, can_be_late: bool) -> (Fault, u64, Vec<(u64, ObjectPath, PutBody)>) {
        self.fired.calls += 1;
        for late in &mut self.late {
            late.0 = late.0.saturating_sub(1);
        }
        let due = self.late.extract_if(.., |late| late.0 == 0).collect();
        let yields = match self.faults.yields_max {
            0 => 0,
            max => self.draw() % (max + 1),
        };
        let dice = self.draw() % 1000;
        let Faults { error_permille, error_after_permille, late_put_permille, .. } = self.faults;
        let fault = if dice < error_permille {
            self.fired.errors += 1;
            Fault::Before
        } else if dice < error_permille + error_after_permille {
            self.fired.errors_after += 1;
            Fault::After
        } else if can_be_late && dice < error_permille + error_after_permille + late_put_permille {
            self.fired.late_puts += 1;
            Fault::Late
        } else {
            Fault::None
        };
        (fault, yields, due)
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl<S: ObjectStore> ObjectStore for FaultyStore<S> {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        let fault = self.before(false).await?;
        Self::after(fault, self.inner.get(path).await)
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        let fault = self.before(false).await?;
        Self::after(fault, self.inner.get_range(path, range).await)
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        let fault = self.before(false).await?;
        Self::after(fault, self.inner.put(path, body).await)
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        let fault = self.before(true).await?;
        if fault == Fault::Late {
            let mut state = self.state.borrow_mut();
            let calls = 1 + state.draw() % 40;
            state.late.push((calls, path.clone(), body));
            return Err(injected("late"));
        }
        Self::after(fault, self.inner.put_if_absent(path, body).await)
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let fault = self.before(false).await?;
        Self::after(fault, self.inner.list(prefix, start_after, limit).await)
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        let fault = self.before(false).await?;
        Self::after(fault, self.inner.head(path).await)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        let fault = self.before(false).await?;
        Self::after(fault, self.inner.delete(path).await)
    }
}

/// Lets other tasks of the same executor run.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn injected(when: &str) -> Error {
    Error::retry(format!("injected fault ({when} the effect)"))
}
