//! Calendars in a terminal: one character for each day, that also tells without colour.

use std::collections::BTreeMap;

use jiff::civil::Date;
use ribera_core::coverage::DayState;
use ribera_storage::Month;

use crate::cli::Lang;
use crate::terminal::colour::{GREEN, GREY, RED, YELLOW};
use crate::terminal::paint;

/// The mark of a state and its ANSI colour.
fn mark(state: DayState) -> (char, u8) {
    match state {
        DayState::Complete => ('■', GREEN),
        DayState::Partial => ('◧', YELLOW),
        DayState::Missing => ('×', RED),
        DayState::Pending => ('○', GREY),
        DayState::NotExpected => ('·', GREY),
    }
}

/// What the marks mean, in one line.
pub fn legend(lang: Lang) -> String {
    let parts = DayState::ALL.map(|state| {
        let (symbol, colour) = mark(state);
        format!("{} {}", paint(&symbol.to_string(), colour), super::state_name(lang, state))
    });
    parts.join("   ")
}

/// A line for each month, a character for each day below its number.
pub fn months(lang: Lang, days: &[(Date, DayState)]) -> String {
    let mut by_month: BTreeMap<Month, BTreeMap<i8, DayState>> = BTreeMap::new();
    for (date, state) in days {
        by_month.entry(Month::of(*date)).or_default().insert(date.day(), *state);
    }
    let mut lines = vec![format!("         {}", "1   5    10   15   20   25   30")];
    for (month, states) in by_month {
        let row = painted((1..=month.last_day().day()).map(|day| states.get(&day).copied()));
        let padding = " ".repeat(usize::try_from(31 - month.last_day().day()).unwrap_or(0));
        lines.push(format!("{month}  {row}{padding}  {}", counts(lang, states.values())));
    }
    lines.join("\n")
}

/// One line of at most `width` characters for the whole run of days: when the days are more, each
/// character stands for as many days as needed and shows the worst of them.
pub fn strip(days: &[(Date, DayState)], width: usize) -> String {
    let per_mark = days.len().div_ceil(width.max(1)).max(1);
    painted(days.chunks(per_mark).map(|chunk| chunk.iter().map(|(_, state)| *state).min_by_key(|state| rank(*state))))
}

/// Days that one character of [`strip`] stands for.
pub fn days_per_mark(days: usize, width: usize) -> usize {
    days.div_ceil(width.max(1)).max(1)
}

/// The worst first.
fn rank(state: DayState) -> u8 {
    match state {
        DayState::Missing => 0,
        DayState::Partial => 1,
        DayState::Complete => 2,
        DayState::Pending => 3,
        DayState::NotExpected => 4,
    }
}

/// Runs of equal states share their colour codes.
fn painted(states: impl Iterator<Item = Option<DayState>>) -> String {
    let (mut text, mut run, mut colour) = (String::new(), String::new(), 0);
    for state in states {
        let (symbol, next) = state.map_or((' ', 0), mark);
        if next != colour && !run.is_empty() {
            text.push_str(&flush(&run, colour));
            run.clear();
        }
        colour = next;
        run.push(symbol);
    }
    text + &flush(&run, colour)
}

fn flush(run: &str, colour: u8) -> String {
    if colour == 0 { run.to_owned() } else { paint(run, colour) }
}

fn counts<'a>(lang: Lang, states: impl Iterator<Item = &'a DayState>) -> String {
    let (mut due, mut complete) = (0_u32, 0_u32);
    for state in states {
        match state {
            DayState::Complete => (due, complete) = (due + 1, complete + 1),
            DayState::Partial | DayState::Missing => due += 1,
            DayState::Pending | DayState::NotExpected => {}
        }
    }
    match due {
        0 => String::new(),
        due => super::percent(lang, floor_percent(complete, due)),
    }
}

/// Rounded down: 100 means all.
fn floor_percent(part: u32, whole: u32) -> f64 {
    f64::from(u32::try_from(u64::from(part) * 10_000 / u64::from(whole)).unwrap_or(0)) / 100.0
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn february(missing: i8) -> Vec<(Date, DayState)> {
        let state = |day| if day == missing { DayState::Missing } else { DayState::Complete };
        (1..=28).map(|day| (date(2017, 2, day), state(day))).collect()
    }

    #[test]
    fn a_month_shows_a_mark_for_each_day_and_its_share() {
        let text = months(Lang::En, &february(3));
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("2017-02  ■■×■"), "{line}");
        assert!(line.ends_with("96.42 %"), "{line}");
    }

    #[test]
    fn a_strip_shows_the_worst_of_the_days_behind_each_mark() {
        assert_eq!(strip(&february(3), 4), "×■■■");
        assert_eq!(strip(&february(28), 100).chars().count(), 28);
    }
}
