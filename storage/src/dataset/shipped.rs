//! The datasets that come with Ribera.

use super::DatasetDefinition;
use crate::error::Result;

/// Name and definition text of every shipped dataset.
pub const SHIPPED: [(&str, &str); 6] = [
    ("ventas", include_str!("../../datasets/ventas.toml")),
    ("ventas_agrupadas", include_str!("../../datasets/ventas_agrupadas.toml")),
    ("inventario", include_str!("../../datasets/inventario.toml")),
    ("movimientos", include_str!("../../datasets/movimientos.toml")),
    ("productos", include_str!("../../datasets/productos.toml")),
    ("tiendas", include_str!("../../datasets/tiendas.toml")),
];

/// A shipped definition by name, or `None` when there is none of that name.
pub fn shipped(name: &str) -> Option<Result<DatasetDefinition>> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| DatasetDefinition::from_toml(text))
}
