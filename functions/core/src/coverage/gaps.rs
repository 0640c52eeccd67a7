//! Runs of missing and partial days: what to extract again, and what an answer lacks.

use jiff::civil::Date;
use ribera_storage::{Month, StoreId};

use super::{AnswerCoverage, Coverage, DayState, GapRun, StateCounts, StoreCoverage, Touched};

/// The runs of all stores and the counts of all days that `touched` says yes to.
pub fn behind(coverage: &Coverage, touched: impl Fn(&StoreId, Date) -> bool) -> AnswerCoverage {
    let mut answer =
        AnswerCoverage { dataset: coverage.dataset.clone(), days: StateCounts::default(), gaps: Vec::new() };
    for store in &coverage.stores {
        of_store(coverage, store, &touched, &mut answer);
    }
    answer
}

fn of_store(
    coverage: &Coverage,
    store: &StoreCoverage,
    touched: impl Fn(&StoreId, Date) -> bool,
    answer: &mut AnswerCoverage,
) {
    let mut open: Option<GapRun> = None;
    for (date, state) in store.calendar.days() {
        let counts = touched(&store.store, date);
        if counts {
            answer.days.add(state, 1);
        }
        let continues = open.as_ref().is_some_and(|run| Month::of(run.from) == Month::of(date));
        if !(counts && state.is_gap() && continues) {
            answer.gaps.extend(open.take());
        }
        if counts && state.is_gap() {
            let run = open.get_or_insert_with(|| GapRun {
                dataset: coverage.dataset.clone(),
                store: store.store.clone(),
                from: date,
                to: date,
                missing: 0,
                partial: 0,
                hold_repair: store.hold_repair,
            });
            run.to = date;
            match state {
                DayState::Missing => run.missing += 1,
                _ => run.partial += 1,
            }
        }
    }
    answer.gaps.extend(open);
}

impl Touched {
    /// Whether an answer that rests on this rests on `date` of `store`.
    pub fn includes(&self, store: &StoreId, date: Date) -> bool {
        self.stores.as_ref().is_none_or(|stores| stores.contains(store))
            && self.from.is_none_or(|from| from <= date)
            && self.to.is_none_or(|to| date <= to)
    }
}
