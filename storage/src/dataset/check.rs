//! Checks: rules over the rows of a batch.

use serde::{Deserialize, Serialize};

use crate::decimal::ExactDecimal;
use crate::error::{Error, Result};

/// A rule over the rows of a batch, tested by `ingest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CheckText")]
pub struct Check {
    pub column: String,
    #[serde(flatten)]
    pub rule: CheckRule,
    pub action: CheckAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckAction {
    Warn,
    Reject,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum CheckRule {
    NotNull,
    /// Inclusive; either side may be open.
    Range {
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<ExactDecimal>,
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<ExactDecimal>,
    },
    Unique,
    /// A glob over the whole text: `*` any run, `?` any one character.
    Pattern {
        glob: String,
    },
    /// The column equals the product of two others within `tolerance`, row by row.
    ProductOf {
        left: String,
        right: String,
        tolerance: ExactDecimal,
    },
}

/// A check as it is written: every key of every rule, so that a key that is unknown, missing or
/// another rule's is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckText {
    column: String,
    rule: RuleName,
    action: CheckAction,
    min: Option<ExactDecimal>,
    max: Option<ExactDecimal>,
    glob: Option<String>,
    left: Option<String>,
    right: Option<String>,
    tolerance: Option<ExactDecimal>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RuleName {
    NotNull,
    Range,
    Unique,
    Pattern,
    ProductOf,
}

impl TryFrom<CheckText> for Check {
    type Error = Error;

    fn try_from(text: CheckText) -> Result<Self> {
        let CheckText { column, rule: name, action, min, max, glob, left, right, tolerance } = text;
        let given = [
            ("min", min.is_some()),
            ("max", max.is_some()),
            ("glob", glob.is_some()),
            ("left", left.is_some()),
            ("right", right.is_some()),
            ("tolerance", tolerance.is_some()),
        ];
        if let Some((key, _)) = given.iter().find(|(key, given)| *given && !name.keys().contains(key)) {
            return Err(Error::config(format!("check of {column}: {key}: is not a key of this rule, got {name:?}")));
        }
        let missing =
            |key: &str| Error::config(format!("check of {column}: {key}: is needed by rule {name:?}, got nothing"));
        let rule = match name {
            RuleName::NotNull => CheckRule::NotNull,
            RuleName::Unique => CheckRule::Unique,
            RuleName::Range if min.is_none() && max.is_none() => return Err(missing("min or max")),
            RuleName::Range => CheckRule::Range { min, max },
            RuleName::Pattern => CheckRule::Pattern { glob: glob.ok_or_else(|| missing("glob"))? },
            RuleName::ProductOf => CheckRule::ProductOf {
                left: left.ok_or_else(|| missing("left"))?,
                right: right.ok_or_else(|| missing("right"))?,
                tolerance: tolerance.ok_or_else(|| missing("tolerance"))?,
            },
        };
        Ok(Self { column, rule, action })
    }
}

impl RuleName {
    /// The keys of this rule beside `column`, `rule` and `action`.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::NotNull | Self::Unique => &[],
            Self::Range => &["min", "max"],
            Self::Pattern => &["glob"],
            Self::ProductOf => &["left", "right", "tolerance"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_read_and_survives_its_own_toml() {
        for keys in [
            "rule = \"not_null\"",
            "rule = \"unique\"",
            "rule = \"range\"\nmin = \"0\"",
            "rule = \"range\"\nmin = \"-1.5\"\nmax = \"2\"",
            "rule = \"pattern\"\nglob = \"M-*\"",
            "rule = \"product_of\"\nleft = \"a\"\nright = \"b\"\ntolerance = \"0.01\"",
        ] {
            let check: Check = toml::from_str(&format!("column = \"c\"\naction = \"warn\"\n{keys}")).unwrap();
            assert_eq!(toml::from_str::<Check>(&toml::to_string(&check).unwrap()).unwrap(), check);
        }
    }

    #[test]
    fn a_key_that_is_unknown_missing_or_of_another_rule_is_named() {
        for (keys, named) in [
            ("rule = \"unique\"\nmin = \"0\"", "min"),
            ("rule = \"range\"", "min or max"),
            ("rule = \"pattern\"", "glob"),
            ("rule = \"product_of\"\nleft = \"a\"", "right"),
            ("rule = \"range\"\nmin = \"0\"\nmaximum = \"1\"", "maximum"),
        ] {
            let error = toml::from_str::<Check>(&format!("column = \"c\"\naction = \"warn\"\n{keys}")).unwrap_err();
            assert!(error.to_string().contains(named), "{error} should name {named}");
        }
    }
}
