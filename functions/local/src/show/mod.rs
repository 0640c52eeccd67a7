//! How answers look in a terminal: tables, numbers, colours, calendars.

use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use jiff::Timestamp;
use jiff::civil::Date;
use ribera_core::coverage::{DayState, Light};
use ribera_storage::engine::{Doubt, DoubtfulFile};
use ribera_storage::{DatasetName, Month, text};

use crate::cli::Lang;
use crate::terminal::colour::{GREEN, GREY, RED, YELLOW};

pub mod calendar;

/// A table with a header row, as wide as its content or the terminal.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    let line = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(line).bottom_border(line));
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(cell));
    if !std::io::stdout().is_terminal() {
        // Files and pipes get whole lines.
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table
}

/// The table's text, without blanks at line ends.
pub fn table_text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A cell of one line, whatever its text holds.
pub fn cell(text: impl ToString) -> Cell {
    Cell::new(text::line(&text.to_string()))
}

pub fn right(text: impl ToString) -> Cell {
    cell(text).set_alignment(CellAlignment::Right)
}

/// A whole number with its thousands apart: `1.469.307` in Spanish, `1,469,307` in English.
pub fn number(lang: Lang, value: u64) -> String {
    let digits = value.to_string();
    let separator = lang.pick('.', ',');
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

/// A number with its noun, one or many: `1 tienda`, `2 tiendas`.
pub fn counted(lang: Lang, count: u64, es: [&str; 2], en: [&str; 2]) -> String {
    let many = usize::from(count != 1);
    format!("{} {}", number(lang, count), lang.pick(es[many], en[many]))
}

/// One line for each doubtful file of `dataset`, a line for the rest, and the command that says more.
pub fn doubtful_lines(lang: Lang, dataset: &DatasetName, doubtful: &[DoubtfulFile]) -> Vec<String> {
    /// Files that are listed before the rest is summed up.
    const FILES_MAX: usize = 5;
    if doubtful.is_empty() {
        return Vec::new();
    }
    let head = lang.pick(
        format!("Archivos dudosos de {dataset}: sus filas están en la respuesta, sin prueba."),
        format!("Doubtful files of {dataset}: their rows are in the answer, unproven."),
    );
    let mut lines = vec![crate::terminal::paint(&head, YELLOW)];
    for file in doubtful.iter().take(FILES_MAX) {
        let store = file.store.as_deref().unwrap_or("?");
        lines.push(format!("  {store}  {}  {}", file.path.escape_debug(), doubt(lang, file.doubt)));
    }
    if doubtful.len() > FILES_MAX {
        let rest = doubtful.len() - FILES_MAX;
        lines.push(lang.pick(format!("  … y {rest} archivos más"), format!("  … and {rest} more files")));
    }
    let verify = format!("ribera verify --dataset {dataset}");
    lines.push(lang.pick(format!("  Para revisarlos: {verify}"), format!("  To check them: {verify}")));
    lines
}

fn doubt(lang: Lang, doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::ForeignFile => lang.pick("lo escribió otro programa", "another program wrote it"),
        Doubt::UnitsUnreadable => lang.pick("no se leen sus días en el registro", "its days in the log cannot be read"),
        Doubt::StatisticsUnreadable => {
            lang.pick("no se leen sus estadísticas en el registro", "its statistics in the log cannot be read")
        }
        Doubt::PartitionUnreadable => {
            lang.pick("el registro no dice de qué tienda es", "the log does not name its store")
        }
        Doubt::PathUnreadable => lang.pick(
            "el registro da una ruta fuera de la tabla: sus filas faltan",
            "the log gives a path outside the table: its rows are missing",
        ),
    }
}

/// A percentage with two decimals at most: `94,25 %` in Spanish, `94.25 %` in English.
pub fn percent(lang: Lang, value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{} %", if lang == Lang::Es { text.replace('.', ",") } else { text.to_owned() })
}

/// `12,3 MB` and the like, in powers of 1000.
pub fn bytes(lang: Lang, value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= 1000.0 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let text = if unit == 0 { format!("{value}") } else { format!("{scaled:.1}") };
    format!("{} {}", if lang == Lang::Es { text.replace('.', ",") } else { text }, UNITS[unit])
}

/// A moment to the second, UTC.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `marzo`, or `marzo 2017` when the period has several years.
pub fn month_name(lang: Lang, month: Month, with_year: bool) -> String {
    let name = core_lang(lang).month_name(month.first_day().month());
    if with_year { format!("{name} {}", month.year()) } else { name.to_owned() }
}

/// Months by name; three and more in a row as the first and the last of them.
pub fn month_names(lang: Lang, months: &[Month], with_year: bool) -> String {
    let name = |month: Month| month_name(lang, month, with_year);
    let mut parts = Vec::new();
    let mut rest = months;
    while let [first, ..] = rest {
        let follows = |pair: &[Month]| pair[0].last_day().tomorrow().is_ok_and(|day| Month::of(day) == pair[1]);
        let run = 1 + rest.windows(2).take_while(|pair| follows(pair)).count();
        let (these, later) = rest.split_at(run);
        match these {
            [_, _, .., last] => parts.push(format!("{} – {}", name(*first), name(*last))),
            few => parts.extend(few.iter().map(|month| name(*month))),
        }
        rest = later;
    }
    parts.join(", ")
}

/// A run of days: `2017-03-01` or `2017-03-01..2017-03-21`.
pub fn days(from: Date, to: Date) -> String {
    if from == to { from.to_string() } else { format!("{from}..{to}") }
}

pub fn core_lang(lang: Lang) -> ribera_core::Lang {
    match lang {
        Lang::Es => ribera_core::Lang::Es,
        Lang::En => ribera_core::Lang::En,
    }
}

/// A light as a mark that also tells without colour, and its colour.
pub fn light(lang: Lang, light: Light) -> (String, u8) {
    match light {
        Light::Green => (format!("● {}", lang.pick("verde", "green")), GREEN),
        Light::Yellow => (format!("◐ {}", lang.pick("amarillo", "yellow")), YELLOW),
        Light::Red => (format!("○ {}", lang.pick("rojo", "red")), RED),
        Light::Grey => (format!("· {}", lang.pick("gris", "grey")), GREY),
        Light::Unknown => (format!("? {}", lang.pick("se desconoce", "unknown")), GREY),
    }
}

/// The name of a day's state.
pub fn state_name(lang: Lang, state: DayState) -> &'static str {
    match state {
        DayState::Complete => lang.pick("completo", "complete"),
        DayState::Partial => lang.pick("parcial", "partial"),
        DayState::Missing => lang.pick("falta", "missing"),
        DayState::Pending => lang.pick("aún no exigible", "not due yet"),
        DayState::NotExpected => lang.pick("no se espera", "not expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_in_a_row_are_named_as_first_and_last() {
        let months = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Month>>();
        let names = |texts: &[&str], years| month_names(Lang::En, &months(texts), years);
        assert_eq!(names(&["2017-01", "2017-02", "2017-05"], false), "January, February, May");
        assert_eq!(
            names(&["2016-11", "2016-12", "2017-01", "2017-03"], true),
            "November 2016 – January 2017, March 2017"
        );
        assert_eq!(names(&[], false), "");
    }

    #[test]
    fn numbers_are_grouped_as_the_language_does() {
        assert_eq!(number(Lang::Es, 1_469_307), "1.469.307");
        assert_eq!(number(Lang::En, 1_469_307), "1,469,307");
        assert_eq!(number(Lang::Es, 999), "999");
        assert_eq!(percent(Lang::Es, 94.25), "94,25 %");
        assert_eq!(percent(Lang::En, 100.0), "100 %");
        assert_eq!(bytes(Lang::En, 12_345_678), "12.3 MB");
    }
}
