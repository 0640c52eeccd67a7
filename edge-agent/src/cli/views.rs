//! What `check` says of views that show each user other rows.

use std::time::Duration;

use ribera_storage::Result;

use super::Lang;
use crate::run::session::ExtractionSession;
use crate::source::{Outcome, Rows, Value};
use crate::sql::{Dialect, Statement, Template, UserViews, View};

/// Views that are asked for one by one.
const SHOWN_MAX: usize = 50;

/// The views that a mapping reads. A server that tells nothing of them is no failure: they are looked at so that a
/// person may know.
pub async fn filtering_by_user(reading: &mut ExtractionSession<'_>) -> UserViews {
    let dialect = reading.context.store.source.dialect();
    let mapping = reading.context.mapping;
    let asked: Vec<&str> =
        [&mapping.from, &mapping.extract, &mapping.filter].into_iter().flatten().map(String::as_str).collect();
    let views = views(reading, dialect).await.unwrap_or_else(|error| {
        tracing::debug!("views: {error}");
        Vec::new()
    });
    UserViews::read_by(&asked.join(" "), &views)
}

async fn views(reading: &mut ExtractionSession<'_>, dialect: Dialect) -> Result<Vec<View>> {
    let Some(sql) = dialect.views() else { return Ok(Vec::new()) };
    let mut views = rows_of(reading, sql, dialect).await?;
    // MariaDB lists the text for those only whose rights all stand in one grant; asked for one view it tells the others.
    for view in views.iter_mut().filter(|view| view.text.is_none()).take(SHOWN_MAX) {
        let Some(sql) = dialect.show_view(&view.name) else { break };
        if let Ok(shown) = rows_of(reading, &sql, dialect).await {
            view.text = shown.into_iter().next().and_then(|shown| shown.text);
        }
    }
    Ok(views)
}

async fn rows_of(reading: &mut ExtractionSession<'_>, sql: &str, dialect: Dialect) -> Result<Vec<View>> {
    let template = Template::parse(sql, dialect)?;
    let (day, store) = (reading.today, &reading.context.store.config.id);
    let statement: Statement<'_> = template.bind(day, day, store);
    let timeout = reading.timeout().min(Duration::from_secs(10));
    let mut found = Found::default();
    Ok(match reading.session.query(&statement, &mut found, timeout).await? {
        Outcome::Done => found.views,
        Outcome::TimedOut => Vec::new(),
    })
}

/// As warnings.
pub fn told(views: &UserViews, lang: Lang) -> Vec<String> {
    let names =
        |names: &std::collections::BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut told = Vec::new();
    if !views.filtering.is_empty() {
        let names = names(&views.filtering);
        told.push(match lang {
            Lang::Es => format!("la vista {names} filtra según el usuario: lo que el del agente no ve se daría por vacío; lea las tablas, o dé a su usuario todas las filas"),
            Lang::En => format!("view {names} filters by user: what the agent's does not see would count as empty; read the tables, or let its user see every row"),
        });
    }
    if !views.hidden.is_empty() {
        let names = names(&views.hidden);
        told.push(match lang {
            Lang::Es => format!("la definición de la vista {names} no es visible: si filtra según el usuario, nadie lo nota (GRANT SELECT, SHOW VIEW; en SQL Server VIEW DEFINITION)"),
            Lang::En => format!("the definition of view {names} is hidden: if it filters by user nobody notices (GRANT SELECT, SHOW VIEW; in SQL Server VIEW DEFINITION)"),
        });
    }
    told
}

/// Names and texts as they come.
#[derive(Default)]
struct Found {
    views: Vec<View>,
    name: String,
    text: Option<String>,
}

impl Rows for Found {
    fn begin(&mut self, _: &[String]) -> Result<()> {
        Ok(())
    }

    fn value(&mut self, index: usize, value: Value<'_>) {
        let text = match value {
            Value::Text(text) => Some(text.to_owned()),
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        match index {
            0 => self.name = text.unwrap_or_default(),
            1 => self.text = text,
            _ => {}
        }
    }

    fn end_row(&mut self) -> Result<()> {
        self.views.push(View { name: std::mem::take(&mut self.name), text: self.text.take() });
        Ok(())
    }
}
