//! Says of a day, once, that it could not be proven in all the tries there are, and that it was
//! after all. While it stands, every run ends with the code that says so.

use ribera_storage::heartbeat::{AuditAlarm, Trouble};
use ribera_storage::{Error, ObjectStore, Result};

use crate::agent::Agent;
use crate::journal::StoreAlarm;
use crate::report::{Problem, Report, Stage};
use crate::run::collect::{Request, audit_command};

impl<S: ObjectStore> Agent<S> {
    /// After a run: tells what is new, notes that it was told, and puts what stands into the report.
    pub(crate) fn settle_alarms(&self, request: &Request, report: &mut Report) {
        let settled = self.tell_alarms(report);
        match settled {
            Ok(standing) => {
                let concerns = |one: &StoreAlarm| {
                    (request.stores.is_empty() || request.stores.contains(&one.store))
                        && (request.datasets.is_empty() || request.datasets.contains(&one.alarm.dataset))
                };
                report.alarms = standing.into_iter().filter(concerns).collect();
            }
            Err(error) => report.problems.push(Problem::new(Stage::Journal, &error)),
        }
    }

    fn tell_alarms(&self, report: &mut Report) -> Result<Vec<StoreAlarm>> {
        let moved = report.upload.acknowledged > 0 || !report.datasets.is_empty();
        if !moved {
            return self.journal.alarms();
        }
        let (standing, change) = self.journal.alarm_change(self.ports.clock.now())?;
        for one in &change.raised {
            let error = told(one);
            self.log_error(error.message());
            // The run that refused it has told why.
            if one.alarm.trouble != Trouble::Refused {
                report.problems.push(Problem::new(Stage::Lake, &error).of(&one.store, Some(&one.alarm.dataset)));
            }
        }
        for StoreAlarm { store, alarm } in &change.ended {
            self.log(format!("store {store}, dataset {}: {} is in order again", alarm.dataset, alarm.unit));
        }
        // Told first and noted then: a crash between them tells it twice, never not at all.
        self.journal.note_alarms(&standing)?;
        Ok(standing)
    }
}

fn told(one: &StoreAlarm) -> Error {
    let StoreAlarm { store, alarm } = one;
    let AuditAlarm { dataset, unit, trouble, tries, source, sent, reason, .. } = alarm;
    let what = match trouble {
        Trouble::Unproven => format!(
            "the source's audit and the rows it gives never agree (audit {} rows, extracted {})",
            source.rows, sent.rows
        ),
        Trouble::LakeDiffers => format!("the lake holds other rows or sums than the {} rows sent", sent.rows),
        Trouble::Quarantined => "the lake refused it".to_owned(),
        Trouble::Refused => {
            let reason = reason.as_deref().unwrap_or("a value does not fit");
            return Error::data(format!(
                "store {store}, dataset {dataset}: {unit} is refused: {reason}; it is tried again when its rows change"
            ))
            .with_hint(audit_command(store, dataset, *unit));
        }
    };
    Error::data(format!(
        "store {store}, dataset {dataset}: {unit} is given up after {tries} tries: {what}; it is not extracted again until it changes or a person asks"
    ))
    .with_hint(audit_command(store, dataset, *unit))
}
