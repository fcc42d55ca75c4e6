//! Settings that more than one group has, and the declaration of a setting.

use quintet_bus::redact_url;
use quintet_contract::id::PoolName;
use quintet_service::settings::{Reader, Secrecy, Setting};

/// Shared by schedulers, agents and `doctor`.
pub(super) const POOL: Setting = setting(
    "pool",
    "QUINTET_POOL",
    Some("default"),
    "pool of the schedulers and agents that are started",
);

/// Shared by schedulers and agents.
pub(super) const STOP_GRACE: Setting = setting(
    "stop_grace_ms",
    "STOP_GRACE_MS",
    Some("10000"),
    "how long a job may take to stop before it is killed",
);

/// Shared by schedulers and all owners of streams.
pub(super) const JOB_RETENTION: Setting = setting(
    "job_retention",
    "JOB_RETENTION",
    Some("7days"),
    "how long ended jobs, their keys and their output are kept",
);

/// Shared by runners and all owners of streams.
pub(super) const RUN_RETENTION: Setting = setting(
    "run_retention",
    "RUN_RETENTION",
    Some("7days"),
    "how long ended runs and the logs of all runs are kept",
);

/// Shared by runners and run workers.
pub(super) const TASK_ACK_WAIT: Setting = setting(
    "task_ack_wait",
    "TASK_ACK_WAIT",
    Some("10s"),
    "how long a run worker may be silent before its task is given to another; the same for runners and run workers",
);

/// Shared by agents and run workers.
pub(super) const WORK_DIR: Setting = setting(
    "work_dir",
    "WORK_DIR",
    None,
    "where relative paths of jobs start, and commands of runs work in runs/; `up` takes work/ and runs/ in its data folder, others the current one",
);

/// The data folder of `up`, which commands that inspect it find there.
pub(crate) const DATA_DIR: &[Setting] = &[setting(
    "data_dir",
    "DATA_DIR",
    Some(".quintet"),
    "where `up` keeps its NATS store, passwords and work",
)];

pub(super) const fn setting(
    key: &'static str,
    env: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        env,
        default,
        help,
        secret: Secrecy::Public,
    }
}

/// A setting that is a URL, shown without the user and password in it.
pub(super) const fn url(
    key: &'static str,
    env: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        env,
        default,
        help,
        secret: Secrecy::Redacted(redact_url),
    }
}

pub(super) const fn secret(
    key: &'static str,
    env: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        env,
        default,
        help,
        secret: Secrecy::Secret,
    }
}

/// The pool of a scheduler or agent.
pub(crate) fn pool(read: &mut Reader<'_>) -> PoolName {
    read.parse_or("pool", PoolName::default())
}
