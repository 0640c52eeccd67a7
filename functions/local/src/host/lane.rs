//! Runs that callers outside ask for: one at a time, and one more for all who came meanwhile.
//!
//! However many callers there are, at most two runs are under way or in waiting. A caller gets the answer of a
//! run that began after the call. Callers beyond the bounds are sent away at once, with the time to come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ribera_storage::{Error, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What a lane lets in, and how often it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLimits {
    /// Callers that wait for the next run. More: fewer have to call again; each holds a connection.
    pub callers_max: usize,
    /// Items of one run, over all its callers.
    pub items_max: usize,
    /// From the end of a run to the begin of the next, at least.
    pub pause_min: Duration,
    /// The pause is so many times as long as the run took, so that callers get a part of a processor only.
    pub pause_factor: u32,
}

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// No place in the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    pub retry_after: Duration,
}

/// What a run answers to each of its callers.
pub type Answer<O> = Arc<Result<O>>;

/// One kind of run. `I` is what a caller adds to a run.
pub struct Lane<I, O> {
    limits: LaneLimits,
    state: Arc<Mutex<State<I, O>>>,
}

struct State<I, O> {
    /// A task runs, or waits to run.
    active: bool,
    /// The callers of the next run.
    waiting: Vec<(Vec<I>, oneshot::Sender<Answer<O>>)>,
    not_before: Instant,
    last_took: Duration,
}

impl<I: Send + 'static, O: Send + Sync + 'static> Lane<I, O> {
    pub fn new(limits: LaneLimits) -> Self {
        let state = State { active: false, waiting: Vec::new(), not_before: Instant::now(), last_took: Duration::ZERO };
        Self { limits, state: Arc::new(Mutex::new(state)) }
    }

    /// Takes part in the next run, and returns its answer. The run goes on if the caller goes away.
    pub async fn join<F: Future<Output = Result<O>> + Send + 'static>(
        &self,
        items: Vec<I>,
        run: impl Fn(Vec<I>) -> F + Send + 'static,
    ) -> Result<Answer<O>, Busy> {
        let (sender, answer) = oneshot::channel();
        if self.enter(items, sender)? {
            tokio::spawn(drive(self.state.clone(), self.limits, run));
        }
        Ok(answer.await.unwrap_or_else(|_| Arc::new(Err(Error::retry("the host stops")))))
    }

    /// Whether nobody drives the runs yet.
    fn enter(&self, items: Vec<I>, sender: oneshot::Sender<Answer<O>>) -> Result<bool, Busy> {
        let mut state = lock(&self.state);
        let waiting: usize = state.waiting.iter().map(|(items, _)| items.len()).sum();
        // A single caller is always let in, whatever it brings.
        let full = state.waiting.len() >= self.limits.callers_max
            || (!state.waiting.is_empty() && waiting + items.len() > self.limits.items_max);
        if full {
            let pause = state.not_before.saturating_duration_since(Instant::now());
            return Err(Busy { retry_after: pause + state.last_took + Duration::from_secs(1) });
        }
        state.waiting.push((items, sender));
        Ok(!std::mem::replace(&mut state.active, true))
    }
}

/// Runs until nobody waits.
async fn drive<I, O: Send + 'static, F: Future<Output = Result<O>> + Send + 'static>(
    state: Arc<Mutex<State<I, O>>>,
    limits: LaneLimits,
    run: impl Fn(Vec<I>) -> F,
) {
    loop {
        let not_before = lock(&state).not_before;
        tokio::time::sleep_until(not_before).await;
        let waiting = std::mem::take(&mut lock(&state).waiting);
        let (items, callers): (Vec<Vec<I>>, Vec<_>) = waiting.into_iter().unzip();
        let started = Instant::now();
        // A run that panics must not end the lane.
        let ran = tokio::spawn(run(items.into_iter().flatten().collect())).await;
        let answer = Arc::new(ran.unwrap_or_else(|error| Err(Error::bug("a run ended by itself").with_source(error))));
        let took = started.elapsed();
        let idle = {
            let mut state = lock(&state);
            state.last_took = took;
            let pause = took.saturating_mul(limits.pause_factor).max(limits.pause_min).min(PAUSE_MAX);
            state.not_before = Instant::now() + pause;
            state.active = !state.waiting.is_empty();
            !state.active
        };
        for caller in callers {
            // A caller may have gone away.
            let _ = caller.send(answer.clone());
        }
        if idle {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held; even so, its content would still be complete.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    fn limits(callers_max: usize, items_max: usize) -> LaneLimits {
        LaneLimits { callers_max, items_max, pause_min: Duration::from_millis(500), pause_factor: 3 }
    }

    /// Runs take 100 ms; each answers with its number and its items.
    fn counted(
        runs: &Arc<AtomicUsize>,
    ) -> impl Fn(Vec<u32>) -> futures::future::BoxFuture<'static, Result<(usize, Vec<u32>)>> + Clone + Send + 'static
    {
        let runs = runs.clone();
        move |items| {
            let runs = runs.clone();
            Box::pin(async move {
                let number = runs.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok((number, items))
            })
        }
    }

    #[tokio::test]
    async fn a_thousand_callers_cause_two_runs_and_those_beyond_the_bound_are_sent_away() {
        let (lane, runs) = (Lane::new(limits(64, 1000)), Arc::new(AtomicUsize::new(0)));
        let first = lane.join(vec![0], counted(&runs));
        let others = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            join_all((1..1000).map(|caller| lane.join(vec![caller], counted(&runs)))).await
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!(first.unwrap().as_ref().as_ref().unwrap(), &(1, vec![0]));
        let (answered, away): (Vec<_>, Vec<_>) = others.into_iter().partition(Result::is_ok);
        assert_eq!((answered.len(), away.len(), runs.load(Ordering::SeqCst)), (64, 935, 2));
        for one in answered {
            let answer = one.unwrap();
            let (run, items) = answer.as_ref().as_ref().unwrap();
            assert_eq!((*run, items.len()), (2, 64), "the trailing run answers for all who waited");
        }
        assert!(away.iter().all(|one| matches!(one, Err(busy) if busy.retry_after >= Duration::from_secs(1))));
    }

    #[tokio::test]
    async fn a_run_that_takes_long_is_followed_by_a_longer_pause() {
        let lane = Lane::new(LaneLimits { pause_min: Duration::ZERO, ..limits(64, 1000) });
        let slow = |_: Vec<u32>| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        };
        let started = Instant::now();
        lane.join(vec![], slow).await.unwrap();
        lane.join(vec![], slow).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(100 + 300 + 100), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_ends_no_run_and_blocks_no_other() {
        let (lane, runs) = (Lane::new(limits(64, 1000)), Arc::new(AtomicUsize::new(0)));
        let gone = tokio::time::timeout(Duration::from_millis(50), lane.join(vec![1], counted(&runs))).await;
        assert!(gone.is_err());
        let answer = lane.join(vec![2], counted(&runs)).await.unwrap();
        assert_eq!(answer.as_ref().as_ref().unwrap(), &(2, vec![2]));
    }

    #[tokio::test]
    async fn items_of_a_run_are_bounded_but_a_single_caller_is_let_in() {
        let (lane, runs) = (Lane::new(limits(64, 3)), Arc::new(AtomicUsize::new(0)));
        let many = lane.join(vec![0; 10], counted(&runs));
        let then = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            tokio::join!(
                lane.join(vec![1, 2], counted(&runs)),
                lane.join(vec![3, 4], counted(&runs)),
                lane.join(vec![5], counted(&runs))
            )
        };
        let (many, (second, third, fourth)) = tokio::join!(many, then);
        assert_eq!(many.unwrap().as_ref().as_ref().unwrap().1.len(), 10);
        assert!(third.is_err());
        assert_eq!(second.unwrap().as_ref().as_ref().unwrap().1, [1, 2, 5]);
        fourth.unwrap();
    }

    #[tokio::test]
    async fn a_run_that_fails_tells_every_caller_and_the_next_one_runs() {
        let lane = Lane::<u32, ()>::new(limits(64, 10));
        let bad = |_: Vec<u32>| async { Err(Error::data("broken")) };
        let answer = lane.join(vec![], bad).await.unwrap();
        assert_eq!(answer.as_ref().as_ref().unwrap_err().message(), "broken");
        assert!(lane.join(vec![], |_: Vec<u32>| async { Ok(()) }).await.unwrap().is_ok());
    }
}
