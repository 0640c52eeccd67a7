//! Views that show each user other rows: what the agent's user does not see would be proven empty.

use std::collections::BTreeSet;

use super::Dialect;

/// What tells who asks, in the dialects that have it.
const WHO_ASKS: [&str; 12] = [
    "current_user",
    "session_user",
    "system_user",
    "current_role",
    "user",
    "suser_sname",
    "suser_name",
    "suser_id",
    "suser_sid",
    "original_login",
    "user_name",
    "database_principal_id",
];

/// A view, or a rule on a table, with its text; none where the user may not see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub name: String,
    pub text: Option<String>,
}

/// The views that a mapping reads and that may hide rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UserViews {
    /// They ask who the user is, themselves or by a view that they read.
    pub filtering: BTreeSet<String>,
    /// Nobody but their owner can say.
    pub hidden: BTreeSet<String>,
}

impl Dialect {
    /// The views of the database, with name and text. SQLite knows no users.
    pub fn views(self) -> Option<&'static str> {
        Some(match self {
            Self::Sqlite => return None,
            Self::Mysql => {
                "SELECT table_name AS name, NULLIF(view_definition, '') AS text FROM information_schema.views \
                 WHERE table_schema = DATABASE()"
            }
            Self::Postgres => {
                "SELECT CAST(c.relname AS text) AS name, pg_catalog.pg_get_viewdef(c.oid) AS text \
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('v', 'm') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'"
            }
            Self::Firebird => {
                "SELECT TRIM(RDB$RELATION_NAME) AS name, CAST(SUBSTRING(RDB$VIEW_SOURCE FROM 1 FOR 8000) AS VARCHAR(8000)) AS text \
                 FROM RDB$RELATIONS WHERE RDB$VIEW_SOURCE IS NOT NULL AND COALESCE(RDB$SYSTEM_FLAG, 0) = 0"
            }
            Self::SqlServer => {
                "SELECT v.name AS name, m.definition AS text FROM sys.views AS v \
                 LEFT JOIN sys.sql_modules AS m ON m.object_id = v.object_id"
            }
        })
    }
}

impl Dialect {
    /// Asks for the text of one view, as second column, where that needs fewer rights than the list.
    pub fn show_view(self, name: &str) -> Option<String> {
        (self == Self::Mysql).then(|| format!("SHOW CREATE VIEW {}", self.quote(name)))
    }
}

impl UserViews {
    /// The views among `views` that the SQL `asked` reads, directly or through another view.
    pub fn read_by(asked: &str, views: &[View]) -> Self {
        let mut found = Self::default();
        let mut looked_at = BTreeSet::new();
        let mut open: Vec<(&View, &View)> =
            views.iter().filter(|view| reads(asked, &view.name)).map(|view| (view, view)).collect();
        // Each view with the one of the mapping by which it is read.
        while let Some((named, view)) = open.pop() {
            if !looked_at.insert((&named.name, &view.name)) {
                continue;
            }
            let Some(text) = &view.text else {
                found.hidden.insert(named.name.clone());
                continue;
            };
            if asks_who(text) {
                found.filtering.insert(named.name.clone());
            }
            open.extend(views.iter().filter(|other| reads(text, &other.name)).map(|other| (named, other)));
        }
        found
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

fn reads(text: &str, name: &str) -> bool {
    // A name with blanks is several words: then all of them in a row, as they stand.
    match words(name).count() {
        1 => words(text).any(|word| word.to_lowercase() == name.to_lowercase()),
        _ => text.to_lowercase().contains(&name.to_lowercase()),
    }
}

/// `user` is a column of many a till, and a function only with parentheses.
fn asks_who(text: &str) -> bool {
    let lower = text.to_lowercase();
    let is_called = |word: &str| {
        lower.match_indices(word).any(|(at, _)| {
            let before = lower[..at].chars().next_back();
            let behind = lower[at + word.len()..].trim_start();
            !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == '.')
                && behind.starts_with('(')
        })
    };
    WHO_ASKS.iter().any(|word| match *word {
        "user" | "user_name" => is_called(word),
        _ => words(&lower).any(|one| one == *word),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, text: &str) -> View {
        View { name: name.to_owned(), text: Some(text.to_owned()) }
    }

    #[test]
    fn a_view_that_filters_by_user_is_named_however_deep_it_lies() {
        let views = [
            view("ventas_mias", "SELECT * FROM ventas WHERE cajero = CURRENT_USER"),
            view("Resumen", "select * from dbo.VENTAS_MIAS"),
            view("de_todos", "SELECT user, usuario FROM ventas"),
            view("otra", "SELECT * FROM x WHERE u = USER()"),
            View { name: "cerrada".to_owned(), text: None },
            view("sobre la cerrada", "select * from [cerrada]"),
        ];
        let read = |asked: &str| UserViews::read_by(asked, &views);
        let names = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
        for (asked, filtering, hidden) in [
            ("ventas", "", ""),
            ("ventas_mias v", "ventas_mias", ""),
            ("dbo.resumen r JOIN de_todos t ON 1 = 1", "Resumen", ""),
            ("[Resumen], \"otra\"", "Resumen otra", ""),
            ("de_todos", "", ""),
            ("mis_ventas_mias_2", "", ""),
            ("[Sobre La Cerrada]", "", "cerrada sobre la cerrada"),
        ] {
            let found = read(asked);
            assert_eq!(
                (names(&found.filtering), names(&found.hidden)),
                (filtering.to_owned(), hidden.to_owned()),
                "{asked}"
            );
        }
    }

    #[test]
    fn views_that_read_each_other_in_a_circle_end() {
        let views = [view("a", "select * from b"), view("b", "select * from a where x = session_user")];
        assert_eq!(UserViews::read_by("a", &views).filtering, BTreeSet::from(["a".to_owned()]));
    }
}
