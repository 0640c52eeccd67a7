//! The operator commands, run as the real program on small lakes that the real ingest made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "operator/fixture.rs"]
mod fixture;

#[path = "operator/check.rs"]
mod check;
#[path = "operator/coverage.rs"]
mod coverage;
#[path = "operator/days.rs"]
mod days;
#[path = "operator/definitions.rs"]
mod definitions;
#[path = "operator/doubt.rs"]
mod doubt;
#[path = "operator/export.rs"]
mod export;
#[path = "operator/hostile_text.rs"]
mod hostile_text;
#[path = "operator/maintain.rs"]
mod maintain;
#[path = "operator/names.rs"]
mod names;
#[path = "operator/quarantine.rs"]
mod quarantine;
#[path = "operator/sql.rs"]
mod sql;
#[path = "operator/verify.rs"]
mod verify;
