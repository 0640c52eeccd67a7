//! What each run leaves behind for people: its report as JSON, and a line per dataset in a CSV
//! logbook; both pruned by age and count.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan};
use ribera_storage::{Error, Result};

use crate::config::Config;
use crate::ports::disk_error;
use crate::report::{DatasetReport, Report};

const HEADER: &str = "started_at,command,store,dataset,from,to,state,tries,batches,rows,sums,seconds,problem\n";

/// The folder `reports` and the file `logbook.csv` of an agent's folder.
pub struct Logbook {
    reports: PathBuf,
    book: PathBuf,
    days: u32,
    reports_max: usize,
}

impl Logbook {
    pub fn of(config: &Config) -> Self {
        Self {
            reports: config.folder.join("reports"),
            book: config.folder.join("logbook.csv"),
            days: config.limits.reports_days,
            reports_max: config.limits.reports_max as usize,
        }
    }

    /// Keeps `report`, and forgets what is too old or too many.
    pub fn keep(&self, report: &Report) -> Result<()> {
        let name = report.started_at.strftime("%Y%m%dT%H%M%S%3fZ");
        let path = self.reports.join(format!("{name}-{}.json", report.command));
        let text = serde_json::to_vec_pretty(report)
            .map_err(|error| Error::bug("a report does not serialise").with_source(error))?;
        fs::create_dir_all(&self.reports).map_err(|error| disk_error("create", &self.reports, error))?;
        fs::write(&path, text).map_err(|error| disk_error("write", &path, error))?;
        self.append(report)?;
        let Ok(oldest) = report.started_at.checked_sub((i64::from(self.days) * 24).hours()) else { return Ok(()) };
        self.prune_reports(oldest)?;
        self.prune_book(oldest)
    }

    fn append(&self, report: &Report) -> Result<()> {
        let failed = |error| disk_error("write", &self.book, error);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.book).map_err(failed)?;
        let is_new = file.metadata().map_err(failed)?.len() == 0;
        let mut lines = if is_new { HEADER.to_owned() } else { String::new() };
        for dataset in &report.datasets {
            lines.push_str(&line(report, Some(dataset)));
        }
        if report.datasets.is_empty() {
            lines.push_str(&line(report, None));
        }
        file.write_all(lines.as_bytes()).map_err(failed)
    }

    /// The names begin with the time, so that their order is that of age.
    fn prune_reports(&self, oldest: Timestamp) -> Result<()> {
        let oldest = oldest.strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let listed = fs::read_dir(&self.reports).map_err(|error| disk_error("read", &self.reports, error))?;
        let mut names: Vec<String> = listed
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".json"))
            .collect();
        names.sort_unstable();
        let surplus = names.len().saturating_sub(self.reports_max);
        for name in names.iter().enumerate().filter(|(at, name)| *at < surplus || **name < oldest).map(|(_, name)| name)
        {
            let path = self.reports.join(name);
            fs::remove_file(&path).map_err(|error| disk_error("delete", &path, error))?;
        }
        Ok(())
    }

    /// Writes the logbook again without its old lines, once the first of them is a day too old.
    fn prune_book(&self, oldest: Timestamp) -> Result<()> {
        let failed = |error| disk_error("write", &self.book, error);
        let at = |line: &str| line.split(',').next().and_then(|at| at.parse::<Timestamp>().ok());
        let slack = oldest.checked_sub(24.hours()).unwrap_or(oldest);
        let first = BufReader::new(fs::File::open(&self.book).map_err(failed)?).lines().nth(1);
        if first.transpose().map_err(failed)?.as_deref().and_then(at).is_none_or(|first| first >= slack) {
            return Ok(());
        }
        let text = fs::read_to_string(&self.book).map_err(failed)?;
        let kept = text.lines().skip(1).filter(|line| at(line).is_some_and(|at| at >= oldest));
        let fresh: String = std::iter::once(HEADER.trim_end()).chain(kept).flat_map(|line| [line, "\n"]).collect();
        let temporary = self.book.with_extension("csv.tmp");
        fs::write(&temporary, fresh).map_err(failed)?;
        replace(&temporary, &self.book)
    }
}

fn replace(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| disk_error("rename", to, error))
}

/// One line; without a dataset it is of a run that came to none.
fn line(report: &Report, dataset: Option<&DatasetReport>) -> String {
    let problem = report.problems.iter().find(|problem| match dataset {
        Some(one) => problem.store.as_ref() == Some(&one.store) && problem.dataset.as_ref() == Some(&one.dataset),
        None => true,
    });
    let state = match dataset {
        Some(one) if !one.unproven.is_empty() => "unproven",
        _ if problem.is_some() => "failed",
        Some(one) if one.batches > 0 => "done",
        _ => "nothing",
    };
    let of = |value: &dyn Fn(&DatasetReport) -> String| dataset.map(value).unwrap_or_default();
    // In order of time: a backfill begins with the newest month.
    let planned = |one: &DatasetReport, last: bool| {
        let units = one.planned.iter().map(|planned| planned.unit);
        let unit = if last { units.max() } else { units.min() };
        unit.map(|unit| unit.to_string()).unwrap_or_default()
    };
    let sums =
        |one: &DatasetReport| one.sums.iter().map(|(name, sum)| format!("{name}={sum}")).collect::<Vec<_>>().join("; ");
    let seconds = |one: &DatasetReport| format!("{:.3}", one.seconds);
    let whole = report.finished_at.duration_since(report.started_at).as_secs_f64();
    let fields = [
        report.started_at.to_string(),
        report.command.clone(),
        of(&|one| one.store.to_string()),
        of(&|one| one.dataset.to_string()),
        of(&|one| planned(one, false)),
        of(&|one| planned(one, true)),
        state.to_owned(),
        of(&|one| one.tries.to_string()),
        of(&|one| one.batches.to_string()),
        of(&|one| one.rows.to_string()),
        of(&sums),
        dataset.map_or_else(|| format!("{whole:.3}"), seconds),
        problem.map(|problem| problem.message.clone()).unwrap_or_default(),
    ];
    let fields: Vec<String> = fields.into_iter().map(quoted).collect();
    format!("{}\n", fields.join(","))
}

/// As RFC 4180 has it; line breaks become blanks, so that a line is a line for every tool.
fn quoted(field: String) -> String {
    let field = field.replace(['\n', '\r'], " ");
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Problem, Stage};

    fn report(at: &str) -> Report {
        let mut report = Report::new("once", at.parse().unwrap());
        let mut dataset = DatasetReport::new(&"s1".parse().unwrap(), &"ventas".parse().unwrap());
        dataset.batches = 1;
        dataset.rows = 12;
        dataset.sums = [("total".to_owned(), "10.50".parse().unwrap())].into();
        report.datasets.push(dataset);
        report
    }

    fn logbook(folder: &Path, days: u32, reports_max: usize) -> Logbook {
        Logbook { reports: folder.join("reports"), book: folder.join("logbook.csv"), days, reports_max }
    }

    #[test]
    fn a_line_says_what_came_of_a_dataset_and_quotes_what_people_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let book = logbook(folder.path(), 90, 500);
        book.keep(&report("2026-03-01T10:00:00Z")).unwrap();
        let mut failed = report("2026-03-01T11:00:00Z");
        failed.datasets[0].batches = 0;
        let error = Error::retry("source: \"caja\", line 1\nline 2");
        failed
            .problems
            .push(Problem::new(Stage::Source, &error).of(&"s1".parse().unwrap(), Some(&"ventas".parse().unwrap())));
        book.keep(&failed).unwrap();
        let text = fs::read_to_string(folder.path().join("logbook.csv")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], HEADER.trim_end());
        assert_eq!(lines[1], "2026-03-01T10:00:00Z,once,s1,ventas,,,done,0,1,12,total=10.50,0.000,");
        assert_eq!(
            lines[2],
            "2026-03-01T11:00:00Z,once,s1,ventas,,,failed,0,0,12,total=10.50,0.000,\"source: \"\"caja\"\", line 1 line 2\""
        );
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn reports_and_lines_are_forgotten_by_age_and_reports_by_count_too() {
        let folder = tempfile::tempdir().unwrap();
        let book = logbook(folder.path(), 30, 5);
        for day in 1..=28 {
            book.keep(&report(&format!("2026-01-{day:02}T10:00:00Z"))).unwrap();
        }
        let count = || fs::read_dir(folder.path().join("reports")).unwrap().count();
        let lines = || fs::read_to_string(folder.path().join("logbook.csv")).unwrap().lines().count();
        assert_eq!((count(), lines()), (5, 29));
        book.keep(&report("2026-02-20T10:00:00Z")).unwrap();
        // Of January the 21st and later are at most thirty days old.
        assert_eq!((count(), lines()), (5, 1 + 8 + 1));
        book.keep(&report("2026-05-01T10:00:00Z")).unwrap();
        assert_eq!((count(), lines()), (1, 2));
    }
}
