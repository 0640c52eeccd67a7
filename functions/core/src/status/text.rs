//! What the page says, in both languages.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ribera_storage::Month;
use ribera_storage::batch::AckOutcome;

use crate::Lang;
use crate::coverage::{DayState, Light};

pub fn light(lang: Lang, light: Light) -> &'static str {
    match light {
        Light::Green => lang.pick("Completa", "Complete"),
        Light::Yellow => lang.pick("Faltan días", "Days missing"),
        Light::Red => lang.pick("Faltan muchos días", "Many days missing"),
        Light::Grey => lang.pick("Sin días debidos", "No day due"),
        Light::Unknown => lang.pick("Se desconoce", "Unknown"),
    }
}

/// A shape for each light, so that colour is never the only sign.
pub fn light_sign(light: Light) -> (&'static str, &'static str) {
    match light {
        Light::Green => ("●", "green"),
        Light::Yellow => ("▲", "yellow"),
        Light::Red => ("■", "red"),
        Light::Grey => ("○", "grey"),
        Light::Unknown => ("?", "grey"),
    }
}

pub fn state(lang: Lang, state: DayState) -> &'static str {
    match state {
        DayState::Complete => lang.pick("completo", "complete"),
        DayState::Partial => lang.pick("parcial", "partial"),
        DayState::Missing => lang.pick("falta", "missing"),
        DayState::Pending => lang.pick("pendiente", "pending"),
        DayState::NotExpected => lang.pick("no se espera", "not expected"),
    }
}

pub fn state_sign(state: DayState) -> (&'static str, &'static str) {
    match state {
        DayState::Complete => ("●", "green"),
        DayState::Partial => ("▲", "yellow"),
        DayState::Missing => ("■", "red"),
        DayState::Pending => ("○", "grey"),
        DayState::NotExpected => ("·", "grey"),
    }
}

pub fn outcome(lang: Lang, outcome: &AckOutcome) -> String {
    match outcome {
        AckOutcome::Committed { version, .. } => {
            format!("{} {version}", lang.pick("en el lago, versión", "in the lake, version"))
        }
        AckOutcome::Superseded => lang.pick("ya había datos más nuevos", "newer data was there").to_owned(),
        AckOutcome::Quarantined { reason, .. } => {
            format!("{}: {}", lang.pick("en cuarentena", "in quarantine"), reason.as_str())
        }
    }
}

/// Grouped by thousands as the language does.
pub fn count(lang: Lang, number: u64) -> String {
    let separator = lang.pick(".", ",");
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push_str(separator);
        }
        text.push(digit);
    }
    text
}

pub fn percent(lang: Lang, percent: f64) -> String {
    let text = format!("{percent:.2} %");
    match lang {
        Lang::Es => text.replace('.', ","),
        Lang::En => text,
    }
}

pub fn month(lang: Lang, month: Month) -> String {
    let name = lang.month_name(month.first_day().month());
    format!("{name} {}", month.year())
}

/// To the second, in UTC.
pub fn moment(at: Timestamp) -> String {
    let civil = at.to_zoned(TimeZone::UTC).datetime();
    format!("{} {:02}:{:02}:{:02} UTC", civil.date(), civil.hour(), civil.minute(), civil.second())
}

/// Monday first, as columns of a calendar.
pub fn weekdays(lang: Lang) -> [&'static str; 7] {
    match lang {
        Lang::Es => ["lun", "mar", "mié", "jue", "vie", "sáb", "dom"],
        Lang::En => ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
    }
}
