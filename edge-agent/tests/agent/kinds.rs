//! Snapshots of a moment, and whole tables.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use ribera_agent::report::Exit;
use ribera_storage::Unit;
use ribera_storage::batch::Manifest;

use crate::fixture::{CONFIG, World};

const MORE: &str = r#"
[adapter.caja.inventario]
from = "existencias"
[adapter.caja.inventario.columns]
producto_id = "codigo"
existencia = "cantidad"

[adapter.caja.productos]
from = "existencias"
[adapter.caja.productos.columns]
producto_id = "codigo"
nombre = "nombre"
"#;

fn world() -> World {
    let world = World::with_config(&format!("{CONFIG}{MORE}"));
    world.sql(
        "CREATE TABLE existencias (codigo TEXT, nombre TEXT, cantidad INTEGER);
         INSERT INTO existencias VALUES ('a', 'Azúcar', 5), ('b', 'Bolsa', 7);",
    );
    world
}

fn of(world: &World, dataset: &str) -> Vec<Manifest> {
    let mut found: Vec<Manifest> =
        world.manifests().into_iter().filter(|one| one.batch.dataset.as_str() == dataset).collect();
    found.sort_by_key(|one| one.batch.position);
    found
}

#[test]
fn stock_is_the_state_at_a_moment_taken_by_schedule() {
    let world = world();
    // Half past nine in the evening in New York is the next day in UTC.
    world.clock.set("2017-05-31T01:30:00.75Z");
    assert_eq!(world.once().exit(), Exit::Done);
    let taken = of(&world, "inventario");
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].units[0].unit.to_string(), "2017-05-31T01:30:00Z");
    assert!(taken[0].units[0].is_proven());
    assert_eq!(taken[0].units[0].file.sums["existencia"].to_string(), "12.000");
    let rows = &world.rows(&taken[0])[0];
    let column = |name: &str| rows.column_by_name(name).unwrap().clone();
    let date = column("fecha").as_primitive::<Date32Type>().value(0);
    assert_eq!(ribera_agent::calendar::date_text(date), "2017-05-30", "the store's own date");
    let moment = column("momento").as_primitive::<TimestampMicrosecondType>().value(1);
    assert_eq!(Unit::Moment(jiff::Timestamp::from_microsecond(moment).unwrap()), taken[0].units[0].unit);
    for (at, taken, why) in [
        ("2017-05-31T03:59:59Z", 1, "a minute before the store's midnight"),
        ("2017-05-31T04:07:00Z", 2, "the first cycle after it"),
        ("2017-05-31T07:59:00Z", 2, "still the first four hours"),
        ("2017-05-31T09:30:00Z", 3, "late, and yet the second four hours"),
        ("2017-05-31T12:01:00Z", 4, "the third, whenever the second was taken"),
    ] {
        world.clock.set(at);
        world.once();
        assert_eq!(of(&world, "inventario").len(), taken, "{why}");
    }
}

#[test]
fn a_cycle_every_hour_takes_stock_six_times_a_day() {
    let world = world();
    for hour in 0..24 {
        // The 30th in New York, each cycle some minutes late.
        let at = jiff::civil::date(2017, 5, 30).at(hour, (hour % 8) * 7, 0, 0).in_tz("America/New_York").unwrap();
        world.clock.set(&at.timestamp().to_string());
        world.once();
    }
    assert_eq!(of(&world, "inventario").len(), 6);
}

#[test]
fn a_whole_table_is_sent_when_it_differs() {
    let world = world();
    world.once();
    world.once();
    assert_eq!(of(&world, "productos").len(), 1);
    world.sql("UPDATE existencias SET nombre = 'Bolsón' WHERE codigo = 'b'");
    world.once();
    let sent = of(&world, "productos");
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[1].units[0].unit, sent[1].month), (Unit::Table, None));
    let rows = &world.rows(&sent[1])[0];
    let names: Vec<&str> = rows.column_by_name("nombre").unwrap().as_string::<i32>().iter().flatten().collect();
    assert_eq!(names, ["Azúcar", "Bolsón"]);
}
