//! `quintet doctor`: checks everything, and prints what to do about each problem.
//!
//! The form is stable: every check is reported every time, in the same order and under the same id. One that another
//! check makes impossible is reported as skipped.

mod bus;
mod edge;
mod finding;
mod machine;

use std::path::PathBuf;

use clap::Args;
use quintet_contract::id::PoolName;
use quintet_service::settings::{Reader, Setting};

use self::finding::{Findings, State};
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::{Global, Output};
use crate::cli::stdout::{emit, print};
use crate::settings::nats::NatsSettings;
use crate::settings::{Flags, Groups, agent, nats, shared};

/// The settings of everything that is checked.
#[derive(Clone, Debug)]
pub(crate) struct DoctorGroups;

impl Groups for DoctorGroups {
    fn tables() -> Vec<&'static [Setting]> {
        vec![
            nats::TABLE,
            nats::RETENTION,
            shared::DATA_DIR,
            nats::EMBEDDED,
            agent::TABLE,
        ]
    }
}

struct DoctorSettings {
    nats: NatsSettings,
    nats_server: PathBuf,
    data_dir: PathBuf,
    pool: PoolName,
    ffmpeg: PathBuf,
}

impl DoctorSettings {
    fn read(read: &mut Reader<'_>) -> Self {
        let agent = agent::read(read);
        Self {
            nats: nats::read_of_owner(read),
            nats_server: nats::read_embedded(read).program,
            data_dir: PathBuf::from(read.text("data_dir")),
            pool: agent.pool,
            ffmpeg: agent.ffmpeg,
        }
    }
}

#[derive(Args)]
pub(crate) struct DoctorCommand {
    #[command(flatten)]
    flags: Flags<DoctorGroups>,
}

pub(crate) async fn run(command: DoctorCommand, global: &Global) -> Outcome {
    let loaded = command.flags.read(DoctorSettings::read)?;
    if command.flags.print_config {
        print(loaded.printed.trim_end());
        return Ok(());
    }
    let config = loaded.settings;
    let mut findings = Findings::default();
    bus::check(&config.nats, &config.data_dir, &config.pool, &mut findings).await;
    edge::check(global, &mut findings).await;
    let server = config
        .nats
        .url
        .is_none()
        .then_some(config.nats_server.as_path());
    machine::check_programs(server, &config.ffmpeg, &mut findings).await;
    machine::check_data_dir(&config.data_dir, &mut findings);
    match global.output {
        Output::Json => emit(serde_json::to_string_pretty(&findings)?),
        Output::Table => findings.lines().for_each(emit),
    }
    match findings.count(State::Fail) {
        0 => Ok(()),
        failed => {
            let text = format!("{failed} of {} checks failed", findings.len());
            Err(Failure::new(exit::FAILED, text).into())
        }
    }
}
