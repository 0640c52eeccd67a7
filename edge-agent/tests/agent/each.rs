//! The same test on every kind of database: a place on a real server of each, or a SQLite file.

use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;

use crate::fixture::{World, block_on};
use crate::{firebird_server, mariadb_server, postgres_server};

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Mariadb,
    Postgres,
    Firebird,
}

pub const KINDS: [Kind; 4] = [Kind::Sqlite, Kind::Mariadb, Kind::Postgres, Kind::Firebird];

/// An empty database of one kind.
pub struct Place {
    pub kind: Kind,
    database: String,
}

impl Place {
    /// `name` is the database's, new in this process.
    pub fn new(kind: Kind, name: &str) -> Self {
        let database = match kind {
            Kind::Sqlite => "pos.db".to_owned(),
            Kind::Mariadb => mariadb_server::server().database(name),
            Kind::Postgres => postgres_server::server().database(name, "UTF8"),
            Kind::Firebird => firebird_server::server().database(name, "UTF8"),
        };
        Self { kind, database }
    }

    /// An agent of one store with this database; `mapping` is of adapter `caja`.
    pub fn world(&self, mapping: &str) -> World {
        World::with_config(&format!(
            "folder = \"agent\"\nobject_store = {{ folder = \"objects\" }}\n[limits]\nchunk_timeout_s = 20\n\
             [[store]]\nid = \"s1\"\ntime_zone = \"America/New_York\"\nadapter = \"caja\"\n[store.source]\n{}\n{mapping}",
            self.source()
        ))
    }

    /// The same with a dataset of the test's own.
    pub fn world_of(&self, definition: &str, mapping: &str) -> World {
        let world = self.world(mapping);
        let definition = DatasetDefinition::from_toml(definition).unwrap();
        block_on(control::publish_dataset(&world.objects, &definition)).unwrap();
        world
    }

    /// What the server's own client shows of one value.
    pub fn ask(&self, world: &World, query: &str) -> String {
        match self.kind {
            Kind::Sqlite => world.till.query_row(query, [], |row| row.get(0)).unwrap(),
            Kind::Mariadb => mariadb_server::server().sql(&format!("USE {}; {query}", self.database)),
            Kind::Postgres => postgres_server::server().sql(&self.database, query),
            Kind::Firebird => firebird_server::server().sql(&self.database, &format!("{query};")),
        }
    }

    /// Runs statements as the owner. `TIMESTAMP` becomes what the server calls a moment without a zone.
    pub fn sql(&self, world: &World, statements: &[String]) {
        let text = statements.iter().map(|one| format!("{one};\n")).collect::<String>();
        match self.kind {
            Kind::Sqlite => world.sql(&text),
            Kind::Mariadb => {
                let text = text.replace("TIMESTAMP", "DATETIME(6)");
                drop(mariadb_server::server().sql(&format!("USE {};\n{text}", self.database)));
            }
            Kind::Postgres => drop(postgres_server::server().sql(&self.database, &text)),
            Kind::Firebird => drop(firebird_server::server().sql(&self.database, &text)),
        }
    }

    /// Runs statements by the client of a server, from any thread.
    pub fn client(&self, sql: &str) -> String {
        match self.kind {
            Kind::Sqlite => panic!("a file has no client"),
            Kind::Mariadb => mariadb_server::server().sql(&format!("USE {}; {sql}", self.database)),
            Kind::Postgres => postgres_server::server().sql(&self.database, sql),
            Kind::Firebird => firebird_server::server().sql(&self.database, sql),
        }
    }

    /// A table that the agent may read.
    pub fn create(&self, world: &World, table: &str, columns: &str) {
        let mut statements = vec![format!("CREATE TABLE {table} ({columns})")];
        if self.kind == Kind::Firebird {
            statements.push(format!("GRANT SELECT ON {table} TO LECTOR"));
        }
        self.sql(world, &statements);
    }

    fn source(&self) -> String {
        let server = |kind: &str, port: u16, password: &str| {
            format!(
                "kind = \"{kind}\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"{}\"\nuser = \"lector\"\n\
                 password = \"{password}\"\n",
                self.database
            )
        };
        match self.kind {
            Kind::Sqlite => "kind = \"sqlite\"\npath = \"pos.db\"\n".to_owned(),
            Kind::Mariadb => server("mariadb", mariadb_server::server().port, "secret"),
            Kind::Postgres => server("postgres", postgres_server::server().port, "contraseña"),
            Kind::Firebird => server("firebird", firebird_server::server().port, "secret"),
        }
    }
}
