//! Environment of the programs that are started: jobs of agents, commands of runs, processes of the frames service.
//!
//! None of them inherits a variable that configures Quintet, since passwords, keys and tokens are among these. The list is the
//! settings table itself, so that a new setting cannot be forgotten.

use quintet_service::settings::{Reader, Setting};
use quintet_service::telemetry;
use quintet_worker::process::EnvironmentFilter;

use super::shared::setting;
use super::{all, table};

/// Shared by all that start programs.
pub(super) const AGENT_ENV: Setting = setting(
    "agent_env",
    "AGENT_ENV",
    None,
    "variables of the settings that jobs, commands of runs and processes of frames inherit all the same, separated by commas; without it none",
);

/// Variables of the command line that are not in the settings table.
const COMMAND_LINE: &[&str] = &[
    "QUINTET_CA",
    "QUINTET_CONFIG",
    "QUINTET_TOKEN",
    "QUINTET_URL",
];

/// Which variables the programs that are started do not inherit.
pub(super) fn filter(read: &mut Reader<'_>) -> EnvironmentFilter {
    let table = table(&all());
    let settings = table.iter().map(|setting| setting.env);
    let all = settings
        .chain(COMMAND_LINE.iter().copied())
        .chain(telemetry::EXPORTER_VARIABLES.iter().copied());
    EnvironmentFilter::withhold(all).pass(read.list("agent_env"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;

    use clap::CommandFactory;
    use quintet_service::settings::Settings;

    use super::*;

    fn filter_with(agent_env: &str) -> EnvironmentFilter {
        let flags = BTreeMap::from([("agent_env".to_owned(), agent_env.to_owned())]);
        let settings = Settings::load(&table(&all()), None, |_| None, flags).unwrap();
        filter(&mut settings.reader())
    }

    fn variables(command: &clap::Command, found: &mut Vec<String>) {
        let arguments = command.get_arguments().filter_map(clap::Arg::get_env);
        found.extend(arguments.map(|name| name.to_string_lossy().into_owned()));
        for command in command.get_subcommands() {
            variables(command, found);
        }
    }

    #[test]
    fn every_variable_that_is_read_is_withheld() {
        let mut read = Vec::new();
        variables(&crate::args::Cli::command(), &mut read);
        assert!(read.contains(&"QUINTET_TOKEN".to_owned()), "{read:?}");
        read.extend(table(&all()).iter().map(|setting| setting.env.to_owned()));
        read.push("OTEL_EXPORTER_OTLP_HEADERS".to_owned());
        let filter = filter_with("");
        for name in read {
            assert!(filter.withholds(OsStr::new(&name)), "{name}");
        }
    }

    #[test]
    fn agent_env_names_what_is_passed_all_the_same() {
        let filter = filter_with("HOST, KUBECONFIG");
        for name in ["HOST", "KUBECONFIG"] {
            assert!(!filter.withholds(OsStr::new(name)), "{name}");
        }
        assert!(filter.withholds(OsStr::new("NATS_PASSWORD")));
    }
}
