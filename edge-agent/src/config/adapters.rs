//! The adapters that come with the agent: mappings of three point-of-sale products, their tables and
//! the script for a user that may only read.

use std::collections::BTreeMap;

use ribera_storage::{DatasetName, Error, Result};
use serde::Deserialize;

use crate::config::DatasetMapping;

/// An adapter, as its files in `edge-agent/adapters/` say.
#[derive(Debug, Clone, Copy)]
pub struct Shipped {
    pub name: &'static str,
    /// The `kind` of source that it reads.
    pub kind: &'static str,
    /// What it reads, for people.
    pub es: &'static str,
    pub en: &'static str,
    /// Its `[adapter.NAME.DATASET]` tables.
    pub mapping: &'static str,
    /// Makes a user that may only read.
    pub grant: &'static str,
    /// The product's tables.
    pub schema: &'static str,
}

pub const SHIPPED: [Shipped; 3] = [
    Shipped {
        name: "abasto",
        kind: "mysql",
        es: "Abasto (MySQL, MariaDB): ventas diarias por producto y existencias; ningún ticket sale de la tienda",
        en: "Abasto (MySQL, MariaDB): daily sales by product, and stock; no ticket leaves the store",
        mapping: include_str!("../../adapters/abasto/adapter.toml"),
        grant: include_str!("../../adapters/abasto/grant.sql"),
        schema: include_str!("../../adapters/abasto/schema.sql"),
    },
    Shipped {
        name: "mostrador",
        kind: "sqlserver",
        es: "Mostrador (SQL Server): ventas por línea de ticket y existencias",
        en: "Mostrador (SQL Server): sales by ticket line, and stock",
        mapping: include_str!("../../adapters/mostrador/adapter.toml"),
        grant: include_str!("../../adapters/mostrador/grant.sql"),
        schema: include_str!("../../adapters/mostrador/schema.sql"),
    },
    Shipped {
        name: "quirofano",
        kind: "firebird",
        es: "Quirófano (Firebird): movimientos de inventario (ventas, compras, traspasos) y existencias",
        en: "Quirófano (Firebird): inventory movements (sales, purchases, transfers), and stock",
        mapping: include_str!("../../adapters/quirofano/adapter.toml"),
        grant: include_str!("../../adapters/quirofano/grant.sql"),
        schema: include_str!("../../adapters/quirofano/schema.sql"),
    },
];

/// By name, or `None` when none of that name comes with the agent.
pub fn shipped(name: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|one| one.name == name)
}

impl Shipped {
    /// Its datasets, as a configuration file would hold them.
    pub fn datasets(&self) -> Result<BTreeMap<DatasetName, DatasetMapping>> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            adapter: BTreeMap<String, BTreeMap<DatasetName, DatasetMapping>>,
        }
        let file: File = toml::from_str(self.mapping)
            .map_err(|error| Error::bug(format!("adapter {}: does not parse", self.name)).with_source(error))?;
        let datasets = file.adapter.into_iter().find(|(name, _)| name == self.name);
        datasets.map(|(_, datasets)| datasets).ok_or_else(|| Error::bug(format!("adapter {}: has no table", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use ribera_storage::dataset::shipped as dataset;

    use super::*;
    use crate::sql::{Dialect, Queries};

    #[test]
    fn every_shipped_adapter_fills_its_datasets_stock_among_them() {
        for one in SHIPPED {
            let datasets = one.datasets().unwrap();
            assert!(datasets.keys().any(|name| name.as_str() == "inventario"), "{}", one.name);
            let dialect = match one.kind {
                "mysql" => Dialect::Mysql,
                "firebird" => Dialect::Firebird,
                "sqlserver" => Dialect::SqlServer,
                other => panic!("{other}: no such kind"),
            };
            for (name, mapping) in &datasets {
                let definition = dataset(name.as_str()).unwrap().unwrap();
                Queries::new(&definition, mapping, dialect).unwrap();
            }
        }
        let movements = shipped("quirofano").unwrap().datasets().unwrap();
        assert_eq!(movements[&"movimientos".parse().unwrap()].chunk_rows, Some(1_000));
    }
}
