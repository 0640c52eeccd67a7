//! A manifest as its JSON has it, in this contract version and the previous one.

use serde::Deserialize;

use super::{AgentFacts, FileFacts, Manifest, UnitFacts, quoted};
use crate::error::{Error, Result};
use crate::ids::{BatchId, Month};

/// Every key of both contract versions. Those of version 1 alone are checked and dropped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestForm {
    contract: u32,
    batch: BatchId,
    dataset_version: u32,
    #[serde(default)]
    month: Option<Month>,
    #[serde(default)]
    file: Option<FileFacts>,
    #[serde(default)]
    units: Vec<UnitFacts>,
    agent: AgentFacts,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    opens_epoch: Option<bool>,
}

impl TryFrom<ManifestForm> for Manifest {
    type Error = Error;

    fn try_from(form: ManifestForm) -> Result<Self> {
        form.check_version_1("kind", form.kind.as_deref(), "batch")?;
        form.check_version_1("mode", form.mode.as_deref(), "replace")?;
        if form.contract > 1
            && let Some(value) = form.opens_epoch
        {
            return Err(Error::reject(format!("opens_epoch: must be absent since contract 2, got {value}")));
        }
        let file = form.file.ok_or_else(|| Error::reject("file: must be there, got nothing"))?;
        let (contract, batch, dataset_version) = (form.contract, form.batch, form.dataset_version);
        Ok(Self { contract, batch, dataset_version, month: form.month, file, units: form.units, agent: form.agent })
    }
}

impl ManifestForm {
    fn check_version_1(&self, field: &str, value: Option<&str>, only: &str) -> Result<()> {
        match value {
            Some(value) if self.contract > 1 => {
                Err(Error::reject(format!("{field}: must be absent since contract 2, got {}", quoted(value))))
            }
            Some(value) if value != only => {
                Err(Error::reject(format!("{field}: must be {only}, got {}", quoted(value))))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION_1: &str = r#"{"contract":1,"kind":"batch","batch":{"store":"s1","dataset":"ventas","epoch":0,"sequence":1},
        "dataset_version":1,"mode":"replace","month":"2026-01",
        "file":{"path":"p","bytes":1,"sha256":"0000000000000000000000000000000000000000000000000000000000000000","rows":0},
        "units":[{"unit":"2026-01-10","file":{"rows":0},"closed":true,"extracted_at":"2026-02-01T00:00:00Z"}],
        "opens_epoch":true,
        "agent":{"version":"1","journal_id":"j","extraction_started_at":"2026-02-01T00:00:00Z","extraction_finished_at":"2026-02-01T00:00:00Z"}}"#;

    #[test]
    fn a_manifest_of_the_previous_contract_version_is_accepted() {
        let manifest = Manifest::from_json(VERSION_1.as_bytes()).unwrap();
        assert_eq!((manifest.contract, manifest.units.len()), (1, 1));
    }

    #[test]
    fn modes_and_kinds_that_no_longer_exist_are_refused_by_name() {
        for (from, to, field) in [
            (r#""kind":"batch""#, r#""kind":"void""#, "kind"),
            (r#""mode":"replace""#, r#""mode":"upsert""#, "mode"),
            (r#""mode":"replace""#, r#""mode":"delete""#, "mode"),
            (r#""contract":1"#, r#""contract":2"#, "kind"),
        ] {
            let error = Manifest::from_json(VERSION_1.replace(from, to).as_bytes()).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Reject);
            assert!(error.message().contains(field), "{error}");
        }
    }
}
