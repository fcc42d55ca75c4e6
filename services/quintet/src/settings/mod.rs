//! All settings in one table, for every command that starts something: a flag, an environment variable and a key of the
//! configuration file each.
//!
//! Each file has the table of one group and its reader. A command declares the groups that it uses ([`Groups`]), and has
//! the flags of those only; a configuration file may name every setting, since one file serves all commands.

pub(crate) mod agent;
pub(crate) mod bus;
pub(crate) mod edge;
pub(crate) mod effects;
mod environment;
pub(crate) mod frames;
pub(crate) mod nats;
pub(crate) mod process;
pub(crate) mod run_worker;
pub(crate) mod runner;
pub(crate) mod scheduler;
pub(crate) mod shared;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use quintet_service::settings::{
    Origin, Reader, Secrecy, Setting, Settings, markdown_table, process_env,
};
use quintet_service::telemetry;

/// The groups of the services.
pub(crate) const SERVICES: &[&[Setting]] =
    &[edge::TABLE, scheduler::TABLE, runner::TABLE, frames::TABLE];

/// The groups of agents and workers.
pub(crate) const WORKERS: &[&[Setting]] = &[agent::TABLE, run_worker::TABLE, effects::TABLE];

/// Every group, in the order of the documentation.
pub(crate) fn all() -> Vec<&'static [Setting]> {
    let nats: &[&[Setting]] = &[nats::TABLE, shared::DATA_DIR, nats::EMBEDDED];
    let process: &[&[Setting]] = &[process::TABLE, telemetry::SETTINGS];
    [SERVICES, nats, WORKERS, process].concat()
}

/// The table for the documentation.
pub(crate) fn markdown() -> String {
    markdown_table(&table(&all()))
}

/// The groups of settings that a command uses.
pub(crate) trait Groups {
    /// Their tables; one may stand in several groups.
    fn tables() -> Vec<&'static [Setting]>;
}

/// The flags of the settings of some groups, and the file.
#[derive(Clone, Debug)]
pub(crate) struct Flags<G> {
    values: BTreeMap<String, String>,
    file: Option<PathBuf>,
    pub(crate) print_config: bool,
    groups: PhantomData<G>,
}

/// Settings that were read.
pub(crate) struct Loaded<T> {
    pub(crate) settings: T,
    /// As they can be printed, secrets masked.
    pub(crate) printed: String,
    layers: Settings,
}

impl<T> Loaded<T> {
    /// Whether a setting has a value other than by default.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        let origin = self.layers.origin(key);
        origin.is_some_and(|origin| *origin != Origin::Default)
    }
}

/// Tables as one, each setting once.
fn table(tables: &[&[Setting]]) -> Vec<Setting> {
    let mut all: Vec<Setting> = Vec::new();
    for setting in tables.iter().copied().flatten() {
        if !all.iter().any(|known| known.key == setting.key) {
            all.push(*setting);
        }
    }
    all
}

impl<G: Groups> Args for Flags<G> {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = table(&G::tables())
            .into_iter()
            .fold(command, |command, setting| {
                let mut help = setting.help.to_owned();
                if let Some(default) = setting
                    .default
                    .filter(|_| !matches!(setting.secret, Secrecy::Secret))
                {
                    help.push_str(&format!(" [default: {default}]"));
                }
                let help = format!("{help} [env: {}]", setting.env);
                command.arg(
                    Arg::new(setting.key)
                        .long(setting.flag())
                        .value_name("VALUE")
                        .help(help)
                        .help_heading("Settings"),
                )
            });
        command
            .arg(Arg::new("config").long("config").env("QUINTET_CONFIG").value_name("FILE").help("configuration file, TOML"))
            .arg(
                Arg::new("print_config")
                    .long("print-config")
                    .action(ArgAction::SetTrue)
                    .help("print the configuration that holds and where each value comes from, and end"),
            )
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<G: Groups> FromArgMatches for Flags<G> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &str| matches.get_one::<String>(key).cloned();
        let values = table(&G::tables())
            .into_iter()
            .filter_map(|setting| Some((setting.key.to_owned(), given(setting.key)?)));
        Ok(Self {
            values: values.collect(),
            file: given("config").map(PathBuf::from),
            print_config: matches.get_flag("print_config"),
            groups: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<G: Groups> Flags<G> {
    /// Reads all layers; every problem is reported at once.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> anyhow::Result<Loaded<T>> {
        let settings = Settings::load(
            &table(&all()),
            self.file.as_deref(),
            process_env,
            self.values.clone(),
        )?;
        let settings = settings.limited_to(&table(&G::tables()));
        let printed = settings.print_config();
        let mut reader = settings.reader();
        let read = read(&mut reader);
        Ok(Loaded {
            settings: reader.finish(read)?,
            printed,
            layers: settings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The groups of `serve`, `agent` and the rest together.
    struct Everything;

    impl Groups for Everything {
        fn tables() -> Vec<&'static [Setting]> {
            all()
        }
    }

    fn flags<G: Groups>(values: &[(&str, &str)], file: Option<PathBuf>) -> Flags<G> {
        let values = values.iter();
        Flags {
            values: values
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            file,
            print_config: false,
            groups: PhantomData,
        }
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let flags = [
            ("port", "many"),
            ("agent_slots", "0"),
            ("replicas", "9"),
            ("api_keys", "eve:king:x"),
        ];
        let read = |read: &mut Reader<'_>| {
            edge::read(read);
            agent::read(read);
            nats::read(read);
        };
        let error = self::flags::<Everything>(&flags, None).read(read).err();
        let error = error.unwrap().to_string();
        for expected in ["port", "agent_slots", "replicas", "unknown role"] {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    /// The groups of an agent.
    struct OfAgent;

    impl Groups for OfAgent {
        fn tables() -> Vec<&'static [Setting]> {
            vec![agent::TABLE]
        }
    }

    #[test]
    fn a_command_has_its_own_groups_and_the_file_may_name_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quintet.toml");
        std::fs::write(&file, "port = \"many\"\nagent_slots = 7\n").unwrap();
        let loaded = flags::<OfAgent>(&[], Some(file.clone())).read(agent::read);
        let loaded = loaded.unwrap();
        assert_eq!(loaded.settings.slots, 7);
        assert!(loaded.printed.contains("agent_slots = 7"));
        assert!(!loaded.printed.contains("port"), "{}", loaded.printed);
        let command = OfAgent::arguments();
        let names: Vec<&str> = command
            .get_arguments()
            .map(|one| one.get_id().as_str())
            .collect();
        assert!(names.contains(&"agent_slots"), "{names:?}");
        assert!(!names.contains(&"port"), "{names:?}");
        std::fs::write(&file, "prot = 1\n").unwrap();
        let refused = flags::<OfAgent>(&[], Some(file)).read(agent::read);
        assert!(refused.err().unwrap().to_string().contains("prot"));
    }

    impl OfAgent {
        fn arguments() -> clap::Command {
            Flags::<Self>::augment_args(clap::Command::new("agent"))
        }
    }

    #[test]
    fn the_table_of_the_readme_is_this_one() {
        let readme = include_str!("../../../../deploy/README.md");
        let between = readme
            .split_once("<!-- settings:begin -->")
            .and_then(|(_, rest)| rest.split_once("<!-- settings:end -->"));
        let (found, _) = between.expect("deploy/README.md has the markers of the settings table");
        assert_eq!(
            found.trim(),
            markdown().trim(),
            "put the output of `quintet settings` between the markers in deploy/README.md"
        );
    }
}
