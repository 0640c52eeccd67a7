//! Runs of missing and partial days: what to extract again, and what an answer lacks.

use jiff::civil::Date;
use ribera_storage::{Month, StoreId};

use super::{AnswerCoverage, Coverage, DayState, GapRun, Period, StateCounts, StoreCoverage, Touched};

/// The runs of all stores and the counts of all days that `touched` says yes to: see [`Coverage::behind_where`].
pub fn behind(coverage: &Coverage, mut touched: impl FnMut(&StoreId, (Date, Date)) -> Option<bool>) -> AnswerCoverage {
    let mut answer =
        AnswerCoverage { dataset: coverage.dataset.clone(), days: StateCounts::default(), gaps: Vec::new() };
    for store in &coverage.stores {
        let mut gaps = Gaps { coverage, store, open: None, answer: &mut answer };
        for (run, state) in store.calendar.month_runs() {
            match touched(&store.store, (run.from, run.to)) {
                Some(true) => gaps.add(run, state),
                Some(false) => gaps.close(),
                None => {
                    for date in run.each_day() {
                        match touched(&store.store, (date, date)) {
                            Some(true) => gaps.add(Period { from: date, to: date }, state),
                            _ => gaps.close(),
                        }
                    }
                }
            }
        }
        gaps.close();
    }
    answer
}

/// The gaps of one store, in order.
struct Gaps<'a> {
    coverage: &'a Coverage,
    store: &'a StoreCoverage,
    /// May go on with the next day.
    open: Option<GapRun>,
    answer: &'a mut AnswerCoverage,
}

impl Gaps<'_> {
    /// The next days, all of one state and month.
    fn add(&mut self, run: Period, state: DayState) {
        self.answer.days.add(state, run.days());
        if !state.is_gap() {
            return self.close();
        }
        if self.open.as_ref().is_some_and(|open| Month::of(open.from) != Month::of(run.from)) {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| GapRun {
            dataset: self.coverage.dataset.clone(),
            store: self.store.store.clone(),
            from: run.from,
            to: run.to,
            missing: 0,
            partial: 0,
            hold_repair: self.store.hold_repair,
        });
        open.to = run.to;
        let days = u32::try_from(run.days()).unwrap_or(u32::MAX);
        match state {
            DayState::Missing => open.missing += days,
            _ => open.partial += days,
        }
    }

    fn close(&mut self) {
        self.answer.gaps.extend(self.open.take());
    }
}

impl Touched {
    /// Whether an answer that rests on this rests on every day of a run of `store`, on none, or on some (`None`).
    pub fn includes(&self, store: &StoreId, (first, last): (Date, Date)) -> Option<bool> {
        let (from, to) = (self.from.unwrap_or(Date::MIN), self.to.unwrap_or(Date::MAX));
        if last < from || to < first || self.stores.as_ref().is_some_and(|stores| !stores.contains(store)) {
            return Some(false);
        }
        (from <= first && last <= to).then_some(true)
    }
}
