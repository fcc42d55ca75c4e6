//! All settings in one table, for every command that starts something: a flag, an environment variable and a key of the
//! configuration file each.

mod frames;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use quintet_agent::AgentConfig;
use quintet_bus::{Credentials, Secret, TlsFiles};
use quintet_contract::id::{AgentId, HolderId, PoolName, QueueName, WorkerId};
use quintet_contract::subject::Prefix;
use quintet_edge::{ApiKey, EdgeConfig, Role, RunRateLimit, Tls};
use quintet_frames::FramesConfig;
use quintet_runner::{KubernetesConfig, RunnerConfig};
use quintet_scheduler::SchedulerConfig;
use quintet_service::settings::{Reader, Secrecy, Setting, Settings, markdown_table, process_env};
use quintet_service::telemetry::{self, TelemetryConfig};
use quintet_workers::RunWorkerConfig;
use quintet_workers::effects::EffectsConfig;

use crate::cli::exit::{self, Failure};
use crate::launch::system::BusSettings;

const fn setting(
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

const fn secret(
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

/// Most slots of a run worker: each may hold a program with its pipes open.
const MAX_RUN_WORKER_SLOTS: usize = 10_000;

/// Everything but telemetry, which brings its own.
const OURS: &[Setting] = &[
    setting(
        "port",
        "PORT",
        Some("8080"),
        "port of the edge; 0 takes a free one",
    ),
    setting(
        "host",
        "HOST",
        Some("127.0.0.1"),
        "address the edge listens on",
    ),
    secret(
        "agent_token",
        "AGENT_TOKEN",
        Some(quintet_edge::DEFAULT_AGENT_TOKEN),
        "what agents on WebSockets must say",
    ),
    setting(
        "heartbeat_interval_ms",
        "HEARTBEAT_INTERVAL_MS",
        Some("3000"),
        "how often agents say that they are there",
    ),
    setting(
        "heartbeat_timeout_ms",
        "HEARTBEAT_TIMEOUT_MS",
        Some("10000"),
        "silence after which an agent is lost",
    ),
    setting(
        "stop_grace_ms",
        "STOP_GRACE_MS",
        Some("10000"),
        "how long a job may take to stop before it is killed",
    ),
    setting(
        "kill_after_ms",
        "KILL_AFTER_MS",
        Some("5000"),
        "how long an agent may take to confirm a kill",
    ),
    setting(
        "assign_ack_timeout_ms",
        "ASSIGN_ACK_TIMEOUT_MS",
        Some("5000"),
        "how long an agent may take to answer an offer",
    ),
    setting(
        "job_retention",
        "JOB_RETENTION",
        Some("7days"),
        "how long ended jobs, their keys and their output are kept",
    ),
    setting(
        "run_retention",
        "RUN_RETENTION",
        Some("7days"),
        "how long ended runs and the logs of all runs are kept",
    ),
    setting(
        "task_ack_wait",
        "TASK_ACK_WAIT",
        Some("10s"),
        "how long a run worker may be silent before its task is given to another; the same for runners and run workers",
    ),
    setting(
        "max_agents",
        "MAX_AGENTS",
        Some("20000"),
        "most agents of a pool, online or not; a new one beyond that is refused",
    ),
    secret(
        "api_keys",
        "API_KEYS",
        None,
        "who may use the interface, as name:role:key, separated by commas; roles are viewer and operator; without keys it is open",
    ),
    secret(
        "orchestrator_api_key",
        "ORCHESTRATOR_API_KEY",
        None,
        "one more key, of the name orchestrator and the role operator",
    ),
    setting(
        "cors_origins",
        "CORS_ORIGINS",
        None,
        "origins whose pages may use the interface, separated by commas; * allows all; without it those of localhost and of the edge itself",
    ),
    setting(
        "rate_limit",
        "RATE_LIMIT",
        None,
        "requests per second of one caller, but for those about runs; without it there is no limit",
    ),
    setting(
        "rate_limit_max",
        "RATE_LIMIT_MAX",
        Some("120"),
        "requests about runs of one caller in a window, over all edges; 0 lifts the limit",
    ),
    setting(
        "rate_limit_window_ms",
        "RATE_LIMIT_WINDOW_MS",
        Some("60000"),
        "how long such a window is; at most an hour, and the same at all edges",
    ),
    setting(
        "body_limit",
        "BODY_LIMIT",
        Some("1048576"),
        "most bytes of a request's body",
    ),
    setting(
        "connections_per_address",
        "CONNECTIONS_PER_ADDRESS",
        Some("20000"),
        "most open connections from one address; all clients behind one proxy share it",
    ),
    setting(
        "streams_per_address",
        "STREAMS_PER_ADDRESS",
        Some("10000"),
        "most open WebSockets and event streams from one address",
    ),
    setting(
        "tls_cert",
        "TLS_CERT",
        None,
        "certificate chain of the edge, PEM",
    ),
    setting("tls_key", "TLS_KEY", None, "private key of the edge, PEM"),
    setting(
        "nats_url",
        "NATS_URL",
        None,
        "NATS to use, several servers of one cluster separated by commas; `up` starts one of its own without it",
    ),
    setting("nats_user", "NATS_USER", None, "user at NATS"),
    secret("nats_password", "NATS_PASSWORD", None, "password at NATS"),
    setting(
        "nats_creds",
        "NATS_CREDS",
        None,
        "credentials file for NATS",
    ),
    setting(
        "nats_ca",
        "NATS_CA",
        None,
        "certificate authority of NATS, PEM",
    ),
    setting(
        "nats_cert",
        "NATS_CERT",
        None,
        "client certificate for NATS, PEM",
    ),
    setting(
        "nats_key",
        "NATS_KEY",
        None,
        "private key of the client certificate for NATS, PEM",
    ),
    setting(
        "prefix",
        "QUINTET_PREFIX",
        Some("quintet"),
        "first part of every subject and bucket",
    ),
    setting(
        "replicas",
        "QUINTET_REPLICAS",
        Some("1"),
        "copies of every stream and bucket; 3 in a cluster",
    ),
    setting(
        "pool",
        "QUINTET_POOL",
        Some("default"),
        "pool of the schedulers and agents that are started",
    ),
    setting(
        "data_dir",
        "DATA_DIR",
        Some(".quintet"),
        "where `up` keeps its NATS store, passwords and work",
    ),
    setting(
        "nats_server",
        "NATS_SERVER",
        Some("nats-server"),
        "the nats-server that `up` starts",
    ),
    setting(
        "nats_port",
        "NATS_PORT",
        Some("0"),
        "port of the nats-server that `up` starts; 0 takes a free one",
    ),
    setting(
        "nats_sync_interval",
        "NATS_SYNC_INTERVAL",
        Some("2m"),
        "how often the nats-server that `up` starts forces its store to disk; `always` survives a power cut, at about a sixth of the speed",
    ),
    setting(
        "agent_id",
        "AGENT_ID",
        None,
        "id of the agent, stable over restarts; the host name without it",
    ),
    setting(
        "agent_name",
        "AGENT_NAME",
        None,
        "what people call the agent",
    ),
    setting(
        "agent_slots",
        "AGENT_SLOTS",
        Some("4"),
        "how many jobs the agent runs at once",
    ),
    setting(
        "agent_labels",
        "AGENT_LABELS",
        None,
        "labels of the agent, as name=value, separated by commas",
    ),
    setting(
        "agent_tags",
        "AGENT_TAGS",
        None,
        "tags of the agent, separated by commas",
    ),
    setting(
        "agent_max_resolution",
        "AGENT_MAX_RESOLUTION",
        None,
        "largest picture of the agent: 360p, 480p, 720p, 1080p, 1440p or 2160p",
    ),
    setting(
        "run_worker_name",
        "RUN_WORKER_NAME",
        None,
        "how run workers are called, the host name without it; each adds what makes it unique",
    ),
    setting(
        "run_worker_queues",
        "RUN_WORKER_QUEUES",
        Some("command"),
        "queues that run workers take commands from, separated by commas",
    ),
    setting(
        "run_worker_slots",
        "RUN_WORKER_SLOTS",
        None,
        "how many commands a run worker runs at once; as many as the machine has cores without it",
    ),
    setting(
        "run_worker_drain",
        "RUN_WORKER_DRAIN",
        Some("10s"),
        "how long commands may go on when their run worker is asked to end; then others continue them from their last checkpoints",
    ),
    setting(
        "run_worker_kill_grace",
        "RUN_WORKER_KILL_GRACE",
        Some("5s"),
        "how long a command may take to end after SIGTERM before it is killed",
    ),
    setting(
        "stall_timeout_ms",
        "STALL_TIMEOUT_MS",
        Some("15000"),
        "an encoder whose frames and bytes stand still for this long has stalled",
    ),
    setting(
        "work_dir",
        "WORK_DIR",
        None,
        "where relative paths of jobs start, and commands of runs work in runs/; `up` takes work/ and runs/ in its data folder, others the current one",
    ),
    setting(
        "metrics_listen",
        "METRICS_LISTEN",
        None,
        "address, such as 127.0.0.1:9090, where a process serves /healthz, /ready and /metrics beside or without an edge",
    ),
    setting(
        "ffmpeg",
        "FFMPEG",
        Some("ffmpeg"),
        "the ffmpeg that agents start",
    ),
    setting(
        "kubeconfig",
        "KUBECONFIG",
        None,
        "cluster for runs of the mode k8s; several files joined as in PATH are merged",
    ),
    setting(
        "k8s_in_cluster",
        "K8S_IN_CLUSTER",
        Some("false"),
        "true for a runner that is in that cluster itself: it uses its pod's service account",
    ),
    setting(
        "k8s_namespace",
        "K8S_NAMESPACE",
        Some("default"),
        "namespace of the Jobs of runs; deploy/kubernetes/rbac.yaml has the rights that a runner needs there",
    ),
    setting(
        "k8s_cpu_limit",
        "K8S_CPU_LIMIT",
        Some("1"),
        "most processor time of a program on Kubernetes, 100m or more",
    ),
    setting(
        "k8s_memory_limit",
        "K8S_MEMORY_LIMIT",
        Some("1Gi"),
        "most memory of a program on Kubernetes, 128Mi or more",
    ),
    setting(
        "k8s_user",
        "K8S_USER",
        Some("65532"),
        "number of the user and group that programs on Kubernetes run as; not 0",
    ),
    setting(
        "k8s_ttl_after_finished",
        "K8S_TTL_AFTER_FINISHED",
        Some("1day"),
        "how long Kubernetes keeps a Job after its end; longer than runners may be away",
    ),
    setting(
        "k8s_cancel_grace",
        "K8S_CANCEL_GRACE",
        Some("10s"),
        "how long a program on Kubernetes may take to end before it is killed",
    ),
    setting(
        "k8s_start_timeout",
        "K8S_START_TIMEOUT",
        Some("5m"),
        "how long Kubernetes may take to place a program and to pull its image",
    ),
];

fn table() -> Vec<Setting> {
    [OURS, frames::TABLE, telemetry::SETTINGS].concat()
}

/// The table for the README.
pub(crate) fn markdown() -> String {
    markdown_table(&table())
}

/// The flags of all settings, and the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    values: BTreeMap<String, String>,
    file: Option<PathBuf>,
    pub(crate) print_config: bool,
}

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = table().into_iter().fold(command, |command, setting| {
            let mut help = setting.help.to_owned();
            if let Some(default) = setting
                .default
                .filter(|_| setting.secret == Secrecy::Public)
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

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &str| matches.get_one::<String>(key).cloned();
        let values = table()
            .into_iter()
            .filter_map(|setting| Some((setting.key.to_owned(), given(setting.key)?)));
        Ok(Self {
            values: values.collect(),
            file: given("config").map(PathBuf::from),
            print_config: matches.get_flag("print_config"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Everything that can be set, read once.
pub(crate) struct Config {
    pub(crate) edge: EdgeConfig,
    pub(crate) scheduler: SchedulerConfig,
    pub(crate) runner: RunnerConfig,
    pub(crate) agent: AgentConfig,
    pub(crate) run_worker: RunWorkerConfig,
    pub(crate) frames: FramesConfig,
    pub(crate) effects: EffectsConfig,
    /// Whether somebody said where jobs work.
    pub(crate) work_dir: Option<PathBuf>,
    /// None when no NATS was named.
    pub(crate) nats_url: Option<String>,
    pub(crate) bus: BusSettings,
    pub(crate) data_dir: PathBuf,
    pub(crate) nats_server: PathBuf,
    pub(crate) nats_port: u16,
    pub(crate) nats_sync_interval: String,
    pub(crate) telemetry: TelemetryConfig,
    /// Where health and metrics are served without an edge.
    pub(crate) metrics: Option<SocketAddr>,
    /// As it can be printed, secrets masked.
    pub(crate) printed: String,
}

impl Config {
    /// Services on their own need a NATS that others reach as well.
    pub(crate) fn require_nats(&self) -> anyhow::Result<()> {
        if self.nats_url.is_none() {
            let text = "name the NATS to use with --nats-url or NATS_URL; `quintet up` starts one of its own";
            return Err(Failure::new(exit::USAGE, text).into());
        }
        Ok(())
    }
}

impl Flags {
    /// Reads all layers; every problem is reported at once.
    pub(crate) fn read(&self, service: &str) -> anyhow::Result<Config> {
        let settings = Settings::load(
            &table(),
            self.file.as_deref(),
            process_env,
            self.values.clone(),
        )?;
        let printed = settings.print_config();
        let mut read = settings.reader();
        let config = Config {
            edge: edge(&mut read),
            scheduler: scheduler(&mut read),
            runner: runner(&mut read),
            agent: agent(&mut read),
            run_worker: run_worker(&mut read),
            frames: frames::frames(&mut read, holder()),
            effects: frames::effects(&mut read),
            work_dir: read.optional("work_dir").map(PathBuf::from),
            nats_url: read.optional("nats_url"),
            bus: bus(&mut read),
            data_dir: PathBuf::from(read.text("data_dir")),
            nats_server: PathBuf::from(read.text("nats_server")),
            nats_port: read.parse("nats_port"),
            nats_sync_interval: read.text("nats_sync_interval"),
            telemetry: TelemetryConfig::read(&mut read, service),
            metrics: read.parse_optional("metrics_listen"),
            printed,
        };
        Ok(read.finish(config)?)
    }
}

fn edge(read: &mut Reader<'_>) -> EdgeConfig {
    let host = read.parse_or("host", IpAddr::from([127, 0, 0, 1]));
    let port = read.parse("port");
    let mut edge = EdgeConfig::new(SocketAddr::new(host, port));
    edge.agent_token = Secret::new(read.text("agent_token"));
    let keys = read
        .optional("api_keys")
        .map(|text| quintet_edge::parse_api_keys(&text));
    match keys.transpose() {
        Ok(keys) => edge.api_keys = keys.unwrap_or_default(),
        Err(error) => read.check("api_keys", false, &error.to_string()),
    }
    if let Some(key) = read.optional("orchestrator_api_key") {
        let key = ApiKey::new("orchestrator", Role::Operator, &key);
        edge.api_keys.push(key);
    }
    edge.cors_origins = read.list("cors_origins");
    edge.rate_limit = read.parse_optional("rate_limit");
    edge.run_rate = run_rate(read);
    edge.body_limit = read.parse("body_limit");
    edge.max_connections_per_address = read.parse("connections_per_address");
    edge.max_streams_per_address = read.parse("streams_per_address");
    let (cert, key) = (read.optional("tls_cert"), read.optional("tls_key"));
    read.check(
        "tls_key",
        cert.is_some() == key.is_some(),
        "certificate and key must be given together",
    );
    edge.tls = cert.zip(key).map(|(cert, key)| Tls {
        cert: cert.into(),
        key: key.into(),
    });
    edge
}

fn run_rate(read: &mut Reader<'_>) -> Option<RunRateLimit> {
    let window = read.millis("rate_limit_window_ms");
    let is_countable = !window.is_zero() && window <= RunRateLimit::LONGEST_WINDOW;
    let text = "must be 1 ms to one hour";
    read.check("rate_limit_window_ms", is_countable, text);
    let max = NonZeroU32::new(read.parse("rate_limit_max"))?;
    Some(RunRateLimit { max, window })
}

fn scheduler(read: &mut Reader<'_>) -> SchedulerConfig {
    let mut scheduler = SchedulerConfig::new(holder());
    scheduler.pool = pool(read);
    scheduler.heartbeat_interval = read.millis("heartbeat_interval_ms");
    scheduler.heartbeat_timeout = read.millis("heartbeat_timeout_ms");
    scheduler.stop_grace = read.millis("stop_grace_ms");
    scheduler.kill_after = read.millis("kill_after_ms");
    scheduler.assign_ack_timeout = read.millis("assign_ack_timeout_ms");
    scheduler.job_retention = read.duration("job_retention");
    scheduler.max_agents = read.parse("max_agents");
    let longer = scheduler.heartbeat_timeout > scheduler.heartbeat_interval;
    read.check(
        "heartbeat_timeout_ms",
        longer,
        "must be longer than the heartbeat interval",
    );
    read.check(
        "heartbeat_interval_ms",
        !scheduler.heartbeat_interval.is_zero(),
        "must be 1 or more",
    );
    let long_enough = scheduler.job_retention >= Duration::from_secs(1);
    read.check("job_retention", long_enough, "must be 1 s or more");
    scheduler
}

fn runner(read: &mut Reader<'_>) -> RunnerConfig {
    let mut runner = RunnerConfig::new(holder());
    runner.run_retention = read.duration("run_retention");
    runner.task_ack_wait = read.duration("task_ack_wait");
    let long_enough = runner.run_retention >= Duration::from_secs(1);
    read.check("run_retention", long_enough, "must be 1 s or more");
    let long_enough = runner.task_ack_wait >= Duration::from_millis(100);
    read.check("task_ack_wait", long_enough, "must be 100 ms or more");
    runner.kubernetes = kubernetes(read);
    runner
}

fn kubernetes(read: &mut Reader<'_>) -> KubernetesConfig {
    let defaults = KubernetesConfig::default();
    let kubernetes = KubernetesConfig {
        kubeconfig: read.optional("kubeconfig").map(PathBuf::from),
        in_cluster: read.boolean("k8s_in_cluster"),
        namespace: read.text("k8s_namespace"),
        cpu_limit: read.parse_or("k8s_cpu_limit", defaults.cpu_limit),
        memory_limit: read.parse_or("k8s_memory_limit", defaults.memory_limit),
        user: read.parse("k8s_user"),
        ttl_after_finished: read.duration("k8s_ttl_after_finished"),
        cancel_grace: read.duration("k8s_cancel_grace"),
        start_timeout: read.duration("k8s_start_timeout"),
    };
    read.check("k8s_user", kubernetes.user != 0, "must not be 0");
    if let Err(error) = kubernetes.check() {
        read.check("k8s_memory_limit", false, &error.to_string());
    }
    kubernetes
}

fn run_worker(read: &mut Reader<'_>) -> RunWorkerConfig {
    let name = read.optional("run_worker_name").unwrap_or_else(host);
    let unique = unique(&name);
    let id = WorkerId::parse(&unique).or_else(|error| {
        read.check("run_worker_name", false, &error.to_string());
        WorkerId::parse(quintet_bus::new_session().to_string())
    });
    let mut worker = RunWorkerConfig::new(id.unwrap_or_else(|_| unreachable!("a UUID is a name")));
    worker.queues = read.parse_list::<QueueName>("run_worker_queues");
    let has_queue = !worker.queues.is_empty();
    read.check("run_worker_queues", has_queue, "must name a queue");
    if let Some(slots) = read.parse_optional("run_worker_slots") {
        worker.slots = slots;
    }
    let has_slot = (1..=MAX_RUN_WORKER_SLOTS).contains(&worker.slots);
    read.check("run_worker_slots", has_slot, "must be 1 to 10000");
    worker.drain_grace = read.duration("run_worker_drain");
    worker.kill_grace = read.duration("run_worker_kill_grace");
    worker.task_ack_wait = read.duration("task_ack_wait");
    let folder = read.optional("work_dir").map(PathBuf::from);
    worker.work_dir = folder.unwrap_or_default().join("runs");
    worker.reaper = std::env::current_exe().ok();
    worker
}

fn host() -> String {
    hostname::get()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A name that no other process has.
fn unique(name: &str) -> String {
    format!(
        "{name}-{}-{}",
        std::process::id(),
        quintet_bus::new_session()
    )
}

/// Names this process among those that may lead.
fn holder() -> HolderId {
    HolderId::parse(unique(&host()))
        .or_else(|_| HolderId::parse(quintet_bus::new_session().to_string()))
        .unwrap_or_else(|_| {
            unreachable!("a UUID is a name");
        })
}

fn pool(read: &mut Reader<'_>) -> PoolName {
    read.parse_or("pool", PoolName::default())
}

fn agent(read: &mut Reader<'_>) -> AgentConfig {
    let mut agent = AgentConfig::new(default_agent());
    if let Some(id) = read.parse_optional::<AgentId>("agent_id") {
        agent.agent = id;
    }
    agent.name = read
        .optional("agent_name")
        .unwrap_or_else(|| agent.agent.to_string());
    agent.pool = pool(read);
    agent.slots = read.parse("agent_slots");
    read.check("agent_slots", agent.slots > 0, "must be 1 or more");
    for label in read.list("agent_labels") {
        match label.split_once('=') {
            Some((name, value)) => drop(
                agent
                    .labels
                    .insert(name.trim().to_owned(), value.trim().to_owned()),
            ),
            None => read.check(
                "agent_labels",
                false,
                "expected name=value, separated by commas",
            ),
        }
    }
    agent.tags = read.list("agent_tags");
    if let Some(text) = read.optional("agent_max_resolution") {
        match serde_json::from_value(serde_json::Value::String(text)) {
            Ok(resolution) => agent.max_resolution = Some(resolution),
            Err(_) => read.check(
                "agent_max_resolution",
                false,
                "expected 360p, 480p, 720p, 1080p, 1440p or 2160p",
            ),
        }
    }
    agent.stall_timeout = read.millis("stall_timeout_ms");
    agent.ffmpeg = PathBuf::from(read.text("ffmpeg"));
    agent.drain_grace = read.millis("stop_grace_ms");
    if let Some(folder) = read.optional("work_dir") {
        agent.work_dir = folder.into();
    }
    agent.reaper = std::env::current_exe().ok();
    agent
}

/// The host's name; of one without a usable name, a word.
fn default_agent() -> AgentId {
    AgentId::parse(host())
        .or_else(|_| AgentId::parse("agent"))
        .unwrap_or_else(|_| unreachable!("a word is a name"))
}

fn bus(read: &mut Reader<'_>) -> BusSettings {
    let url = read.optional("nats_url").unwrap_or_default();
    let mut bus = BusSettings::open(url);
    bus.prefix = read.parse_or::<Prefix>("prefix", Prefix::default());
    bus.replicas = read.parse("replicas");
    read.check(
        "replicas",
        (1..=5).contains(&bus.replicas),
        "must be 1 to 5",
    );
    bus.retention.jobs = read.duration("job_retention");
    bus.retention.runs = read.duration("run_retention");
    let (user, password) = (read.optional("nats_user"), read.optional("nats_password"));
    let creds = read.optional("nats_creds");
    bus.credentials = match (creds, user) {
        (Some(file), _) => Credentials::File(file.into()).into(),
        (None, Some(user)) => {
            let password = Secret::new(password.unwrap_or_default());
            Credentials::UserPassword { user, password }.into()
        }
        (None, None) => Credentials::None.into(),
    };
    let path = |text: Option<String>| text.map(PathBuf::from);
    let (ca, cert, key) = (
        path(read.optional("nats_ca")),
        path(read.optional("nats_cert")),
        path(read.optional("nats_key")),
    );
    read.check(
        "nats_key",
        cert.is_some() == key.is_some(),
        "certificate and key must be given together",
    );
    if ca.is_some() || cert.is_some() {
        bus.tls = Some(TlsFiles { ca, cert, key });
    }
    bus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_at_once() {
        let flags = [
            ("port", "many"),
            ("agent_slots", "0"),
            ("replicas", "9"),
            ("api_keys", "eve:king:x"),
        ];
        let values = flags
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let error = Flags {
            values,
            ..Flags::default()
        }
        .read("test")
        .err()
        .unwrap()
        .to_string();
        for expected in ["port", "agent_slots", "replicas", "unknown role"] {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn the_table_of_the_readme_is_this_one() {
        let readme = include_str!("../../../../README.md");
        let between = readme
            .split_once("<!-- settings:begin -->")
            .and_then(|(_, rest)| rest.split_once("<!-- settings:end -->"));
        let (found, _) = between.expect("README.md has the markers of the settings table");
        assert_eq!(
            found.trim(),
            markdown().trim(),
            "put the output of `quintet settings` between the markers in README.md"
        );
    }
}
