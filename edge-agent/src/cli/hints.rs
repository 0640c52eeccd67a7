//! The command that a problem ends with, as it can be typed: with the configuration that this command was given, and
//! none that leads back to this command.

use super::Common;
use crate::report::Problem;
use crate::system;

pub(super) const CONFIG_VARIABLE: &str = "RIBERA_AGENT_CONFIG";

const PROGRAM: &str = "ribera-agent ";
/// Words that only narrow what a command looks at.
const NARROWING: [&str; 3] = ["--stores", "--datasets", "--quick"];
/// Days narrow what is compared; elsewhere they are what is asked for.
const DAYS: [&str; 2] = ["--from", "--to"];

/// Makes the hints of problems such as a person can follow here.
pub fn complete<'a>(common: &Common, problems: impl IntoIterator<Item = &'a mut Problem>) {
    for problem in problems {
        problem.hint = problem.hint.take().and_then(|hint| completed(common, &hint));
    }
}

/// The hint with the configuration that was given; `None` if it leads back here.
pub fn completed(common: &Common, hint: &str) -> Option<String> {
    let hint = match hint.split_once(", then ") {
        Some((command, rest)) if leads_back(common, command) => rest,
        _ if leads_back(common, hint) => return None,
        _ => hint,
    };
    Some(with_config(common, hint))
}

/// A command with the configuration that was given.
pub fn with_config(common: &Common, command: &str) -> String {
    let given = common.config.display().to_string();
    let is_known =
        common.config == system::config_file() || std::env::var(CONFIG_VARIABLE).is_ok_and(|path| path == given);
    if is_known || command.contains("--config ") {
        return command.to_owned();
    }
    let given = if given.contains(' ') { format!("\"{given}\"") } else { given };
    command.replacen(PROGRAM, &format!("{PROGRAM}--config {given} "), 1)
}

/// Whether a command is the one that runs, asked for the same or less.
fn leads_back(common: &Common, command: &str) -> bool {
    let Some(words) = command.strip_prefix(PROGRAM).and_then(|words| words.strip_prefix(common.command)) else {
        return false;
    };
    let mut words = words.split_whitespace().filter(|word| word.starts_with('-'));
    let narrows = |word: &str| NARROWING.contains(&word) || (common.command == "audit" && DAYS.contains(&word));
    !common.command.is_empty() && words.all(narrows)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::*;

    fn told(words: &[&str], hint: &str) -> Option<String> {
        let cli = Cli::parse_from([&["ribera-agent"], words].concat());
        completed(&Common { command: cli.verb.name(), ..cli.common }, hint)
    }

    #[test]
    fn a_hint_repeats_the_configuration_that_was_given() {
        let given = ["--config", "mi agente.toml", "once"];
        let cases = [
            ("ribera-agent check --stores s1", "ribera-agent --config \"mi agente.toml\" check --stores s1"),
            ("RIBERA_LOG=debug ribera-agent once", "RIBERA_LOG=debug ribera-agent --config \"mi agente.toml\" once"),
            ("systemctl status ribera-agent", "systemctl status ribera-agent"),
            ("ribera store add s1", "ribera store add s1"),
            ("ribera-agent --config FILE check", "ribera-agent --config FILE check"),
        ];
        for (hint, expected) in cases {
            assert_eq!(told(&given, hint).as_deref(), Some(expected));
        }
        assert_eq!(told(&["once"], cases[0].0).as_deref(), Some(cases[0].0), "the file that is found anyway");
    }

    #[test]
    fn no_hint_leads_back_to_the_command_that_it_is_of() {
        assert_eq!(told(&["check"], "ribera-agent check --stores s1"), None);
        assert_eq!(told(&["check"], "ribera-agent check --quick --stores s1"), None);
        assert_eq!(told(&["config", "check"], "ribera-agent config check"), None);
        assert_eq!(told(&["check"], "ribera-agent check, then raise the limit").as_deref(), Some("raise the limit"));
        let days = ["audit", "--from", "2026-01-01", "--to", "2026-01-02"];
        assert_eq!(told(&days, "ribera-agent audit --stores s1 --from 2026-01-01 --to 2026-01-01"), None);
        let begin = "ribera-agent backfill --from YYYY-MM-DD --to YYYY-MM-DD";
        assert_eq!(told(&["backfill", "--resume"], begin).as_deref(), Some(begin));
        // What it adds is what helps.
        let remedy = "ribera-agent once --new-journal";
        assert_eq!(told(&["once"], remedy).as_deref(), Some(remedy));
        assert_eq!(told(&["once"], "ribera-agent check").as_deref(), Some("ribera-agent check"));
    }
}
