//! `quintet nats-conf`: a configuration for a NATS that others run, with one user per role and one per agent. Its
//! passwords come from the environment of nats-server.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use quintet_contract::id::AgentId;
use quintet_contract::permission::{NatsConf, NatsUser, Password, Role, render_nats_conf};
use quintet_contract::subject::Prefix;

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::stdout::print;

#[derive(Args)]
pub(crate) struct NatsConfCommand {
    /// An agent that may connect; once for each
    #[arg(long = "agent", value_name = "ID", default_value = "agent-1")]
    agents: Vec<AgentId>,
    /// Address and port to listen on
    #[arg(long, default_value = "0.0.0.0:4222")]
    listen: String,
    /// Folder of the JetStream store
    #[arg(long, default_value = "/var/lib/nats")]
    store_dir: String,
    /// How often the store is forced to disk: a duration, or `always`
    #[arg(long, default_value = "2m")]
    sync_interval: String,
    /// First part of every subject and bucket
    #[arg(long, env = "QUINTET_PREFIX", default_value = "quintet")]
    prefix: Prefix,
    /// Write it to this file instead of standard output
    #[arg(long)]
    file: Option<PathBuf>,
}

pub(crate) fn run(command: NatsConfCommand) -> Outcome {
    let file = command.file.clone();
    let text = render_nats_conf(&conf(command)?);
    match file {
        Some(file) => std::fs::write(&file, text)
            .with_context(|| format!("cannot write {}", file.display()))?,
        None => print(text.trim_end()),
    }
    Ok(())
}

fn conf(command: NatsConfCommand) -> anyhow::Result<NatsConf> {
    let agents = command.agents.into_iter().map(Role::Agent);
    let roles = Role::SERVICES.into_iter().chain(agents);
    // Two users with the same password would be one user with two names.
    let mut variables = BTreeMap::new();
    let mut users = Vec::new();
    for role in roles {
        let variable = variable(&role);
        if let Some(other) = variables.insert(variable.clone(), role.user()) {
            let text = format!(
                "{other} and {} would share the password variable {variable}; name each agent once, and so that letters \
                 and digits distinguish them",
                role.user()
            );
            return Err(Failure::new(exit::USAGE, text).into());
        }
        let password = Password::Environment(variable);
        users.push(NatsUser { role, password });
    }
    Ok(NatsConf {
        listen: command.listen,
        store_dir: command.store_dir,
        sync_interval: command.sync_interval,
        prefix: command.prefix,
        users,
    })
}

/// The environment variable of nats-server that holds a user's password.
fn variable(role: &Role) -> String {
    let plain = |letter: char| match letter.is_ascii_alphanumeric() {
        true => letter.to_ascii_uppercase(),
        false => '_',
    };
    let name: String = role.user().chars().map(plain).collect();
    format!("QUINTET_{name}_PASSWORD")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use quintet_contract::permission::example;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: NatsConfCommand,
    }

    fn of(arguments: &[&str]) -> anyhow::Result<NatsConf> {
        let line = ["nats-conf"].iter().chain(arguments);
        conf(Line::try_parse_from(line)?.command)
    }

    #[test]
    fn without_arguments_it_is_the_one_in_the_repository() {
        assert_eq!(of(&[]).unwrap(), example());
    }

    #[test]
    fn every_agent_has_a_user_and_a_password_of_its_own() {
        let conf = of(&["--agent", "studio 1", "--agent", "studio 2"]).unwrap();
        let agents: Vec<_> = conf.users[Role::SERVICES.len()..]
            .iter()
            .map(|user| (user.role.user(), user.password.text()))
            .collect();
        assert_eq!(
            agents,
            [
                (
                    "agent-studio=201".to_owned(),
                    "QUINTET_AGENT_STUDIO_201_PASSWORD"
                ),
                (
                    "agent-studio=202".to_owned(),
                    "QUINTET_AGENT_STUDIO_202_PASSWORD"
                ),
            ]
        );
        let error = of(&["--agent", "a-b", "--agent", "a_b"]).unwrap_err();
        assert!(error.to_string().contains("agent-a_b"), "{error}");
    }
}
