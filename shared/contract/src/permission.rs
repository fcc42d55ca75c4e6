//! Permissions on the bus: one NATS user per role, with the subjects that its part needs and no others.
//!
//! The JetStream subjects are those that the bus crate uses: direct gets and ephemeral consumers to read, publishing to
//! `$KV.…` to write a bucket. An answer goes to the inbox of the requester ([`inbox`]): owners answer every client,
//! agents only the scheduler, and no client reads a foreign inbox. NATS's own `allow_responses` is not used: the server
//! remembers every message that has a reply subject, those of its streams included, until it is answered or two minutes
//! are over, and looks through all of them again and again; at thousands of jobs a second that was a tenth of all work.
//!
//! One thing NATS cannot express: an agent reads its own queue by a request on the whole stream of offers, so it could
//! read the offers to others, too. It cannot answer them: reports are bound to its own name.

use std::fmt::Write;

use crate::bucket::{
    Access, Agents, Bucket, Frames, Jobs, Keys, Leases, PROBE_KEY, Runs, Secrets, Templates,
};
use crate::id::{AgentId, escape};
use crate::subject::{Prefix, WorkerHeartbeats};
use crate::topology::stream;
use crate::worker::WorkerKind;

/// A part that speaks on the bus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Turns HTTP and sockets into requests; speaks for every agent on a WebSocket.
    Edge,
    /// Owns jobs, agents and templates.
    Scheduler,
    /// Owns runs.
    Runner,
    /// Will route inference requests.
    Router,
    /// Will own voice sessions.
    Voice,
    /// Owns the display.
    Frames,
    /// Takes tasks of runs and draws frames; will work for router and voice.
    Worker,
    /// One agent; may speak only as itself.
    Agent(AgentId),
    /// Receives everything, publishes nothing.
    Observer,
    /// A person with the `nats` CLI: asks services, reads buckets and streams, changes none.
    Operator,
}

impl Role {
    /// Every role but the agents, of which each has its own.
    pub const SERVICES: [Role; 9] = [
        Self::Edge,
        Self::Scheduler,
        Self::Runner,
        Self::Router,
        Self::Voice,
        Self::Frames,
        Self::Worker,
        Self::Observer,
        Self::Operator,
    ];

    /// Its user name at NATS.
    pub fn user(&self) -> String {
        match self {
            Self::Edge => "edge".to_owned(),
            Self::Scheduler => "scheduler".to_owned(),
            Self::Runner => "runner".to_owned(),
            Self::Router => "router".to_owned(),
            Self::Voice => "voice".to_owned(),
            Self::Frames => "frames".to_owned(),
            Self::Worker => "worker".to_owned(),
            Self::Agent(agent) => format!("agent-{}", escape(agent.as_str())),
            Self::Observer => "observer".to_owned(),
            Self::Operator => "operator".to_owned(),
        }
    }
}

/// The subjects of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// What it may publish.
    pub publish: Vec<String>,
    /// What it may subscribe to.
    pub subscribe: Vec<String>,
    /// What it may neither publish nor subscribe to, whatever else it may.
    pub deny: Vec<String>,
}

/// Where the answers to a user go: the prefix of its reply subjects.
pub fn inbox(user: &str) -> String {
    format!("{INBOXES}.{user}")
}

/// Not the `_INBOX` of other clients: a client of the `nats` CLI reads all of that.
const INBOXES: &str = "_REPLY";

/// The permissions of a role under a prefix.
///
/// A reader of buckets in general still reads no secret, which only the edge may: its holder can sign for any client.
pub fn permissions(role: &Role, prefix: &Prefix) -> Permissions {
    let deny = match role {
        Role::Edge => Vec::new(),
        Role::Scheduler
        | Role::Runner
        | Role::Router
        | Role::Voice
        | Role::Frames
        | Role::Worker
        | Role::Agent(_)
        | Role::Observer
        | Role::Operator => reads_of(&Secrets::bucket(prefix)),
    };
    let Allowed { publish, subscribe } = allowed(role, prefix);
    Permissions {
        publish,
        subscribe,
        deny,
    }
}

struct Allowed {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

/// What a role may do, but for what is denied to it.
fn allowed(role: &Role, prefix: &Prefix) -> Allowed {
    let own = |subjects: &[&str]| {
        subjects
            .iter()
            .map(|subject| format!("{prefix}.{subject}"))
            .collect::<Vec<_>>()
    };
    let inbox = format!("{}.>", inbox(&role.user()));
    match role {
        Role::Scheduler => Allowed {
            publish: [
                own(&["assign.*", "agent.*.*"]),
                buckets(prefix),
                reads(),
                creates(),
                answers_to_all(),
            ]
            .concat(),
            subscribe: [
                vec![inbox, "$SRV.>".to_owned()],
                own(&["svc.>", "hb.>", "report.>"]),
            ]
            .concat(),
        },
        Role::Edge => Allowed {
            publish: [
                own(&["svc.>", "hb.>", "report.>", "evt.>", "rate.*.*", "frame.*"]),
                // Drains run workers.
                own(&["work.*.ctl"]),
                reads(),
                vec![
                    answers_to_scheduler(),
                    format!("$O.{}.>", stream::blobs(prefix)),
                    format!("$KV.{}.>", Access::bucket(prefix)),
                    format!("$KV.{}.>", Secrets::bucket(prefix)),
                ],
            ]
            .concat(),
            subscribe: [
                vec![inbox],
                own(&[
                    "live.>",
                    "assigned.*",
                    "agent.*.*",
                    // Speaks for workers of frames on WebSockets.
                    "tick.*",
                ]),
                heartbeats(prefix),
            ]
            .concat(),
        },
        Role::Agent(agent) => {
            let token = escape(agent.as_str());
            let mine = |kind: &str| {
                own(&[
                    &format!("{kind}.agent.{token}"),
                    &format!("{kind}.agent.{token}.*"),
                ])
            };
            let queue = format!("$JS.API.DIRECT.GET.{}", stream::assignments(prefix));
            let lease = format!("$JS.API.DIRECT.GET.KV_{}.>", Leases::bucket(prefix));
            let lease_of_leader = format!("$JS.API.STREAM.MSG.GET.KV_{}", Leases::bucket(prefix));
            Allowed {
                publish: [
                    mine("hb"),
                    mine("report"),
                    own(&["evt.job.*.*"]),
                    vec![queue, lease, lease_of_leader, answers_to_scheduler()],
                ]
                .concat(),
                subscribe: [
                    vec![inbox],
                    own(&[&format!("assigned.{token}"), &format!("agent.{token}.*")]),
                ]
                .concat(),
            }
        }
        Role::Observer => Allowed {
            publish: Vec::new(),
            subscribe: vec![inbox, format!("{prefix}.>"), "$KV.>".to_owned()],
        },
        Role::Operator => Allowed {
            publish: [own(&["svc.>"]), vec!["$SRV.>".to_owned()], reads(), lists()].concat(),
            subscribe: vec![
                inbox,
                "_INBOX.>".to_owned(),
                format!("{prefix}.>"),
                "$KV.>".to_owned(),
            ],
        },
        Role::Runner => Allowed {
            publish: [
                own(&[
                    "task.*",
                    "evt.run.*.*",
                    "work.*.ctl",
                    "hb.runner.*",
                    // Nodes of kind `job`.
                    "svc.jobs.>",
                ]),
                vec![
                    format!("$KV.{}.>", Runs::bucket(prefix)),
                    format!("$KV.{}.runner.>", Leases::bucket(prefix)),
                    format!("$KV.{}.{PROBE_KEY}", Leases::bucket(prefix)),
                    format!("$JS.API.CONSUMER.INFO.{}.*", stream::tasks(prefix)),
                ],
                reads(),
                creates(),
                answers_to_all(),
            ]
            .concat(),
            subscribe: [
                vec![inbox, "$SRV.>".to_owned()],
                own(&["svc.runs.>", "report.run.*", "hb.runner.*"]),
            ]
            .concat(),
        },
        Role::Worker => {
            let tasks = stream::tasks(prefix);
            Allowed {
                publish: [
                    own(&["report.run.*", "frame.*"]),
                    heartbeats(prefix),
                    vec![
                        format!("$JS.API.STREAM.INFO.{tasks}"),
                        format!("$JS.API.CONSUMER.CREATE.{tasks}.>"),
                        format!("$JS.API.CONSUMER.DURABLE.CREATE.{tasks}.*"),
                        format!("$JS.API.CONSUMER.INFO.{tasks}.*"),
                        format!("$JS.API.CONSUMER.MSG.NEXT.{tasks}.*"),
                        format!("$JS.ACK.{tasks}.>"),
                        format!("{}.>", self::inbox(&Role::Runner.user())),
                        format!("{}.>", self::inbox(&Role::Edge.user())),
                    ],
                ]
                .concat(),
                // The beats of others: of two programs that draw the same effect the later one does.
                subscribe: [vec![inbox], own(&["work.*.ctl", "tick.*", "hb.frames.*"])].concat(),
            }
        }
        Role::Frames => Allowed {
            publish: [
                own(&["tick.*", "live.frames"]),
                vec![
                    format!("$KV.{}.>", Frames::bucket(prefix)),
                    format!("$KV.{}.frames", Leases::bucket(prefix)),
                    format!("$KV.{}.{PROBE_KEY}", Leases::bucket(prefix)),
                ],
                reads(),
                creates(),
                answers_to_all(),
            ]
            .concat(),
            subscribe: [
                vec![inbox, "$SRV.>".to_owned()],
                own(&["svc.frames.>", "frame.*", "hb.frames.*"]),
            ]
            .concat(),
        },
        Role::Router | Role::Voice => Allowed {
            publish: Vec::new(),
            subscribe: vec![inbox],
        },
    }
}

fn owned(subjects: &[&str]) -> Vec<String> {
    subjects
        .iter()
        .map(|subject| (*subject).to_owned())
        .collect()
}

/// Writing every bucket that a scheduler owns.
fn buckets(prefix: &Prefix) -> Vec<String> {
    let names = [
        Jobs::bucket(prefix),
        Agents::bucket(prefix),
        Templates::bucket(prefix),
        Keys::bucket(prefix),
        Leases::bucket(prefix),
    ];
    names.iter().map(|name| format!("$KV.{name}.>")).collect()
}

/// Heartbeats of workers of every kind.
fn heartbeats(prefix: &Prefix) -> Vec<String> {
    let kinds = WorkerKind::ALL.iter();
    kinds
        .map(|kind| WorkerHeartbeats::filter(prefix, Some(kind), None))
        .collect()
}

/// Answering the parts of this system, and people.
fn answers_to_all() -> Vec<String> {
    vec![format!("{INBOXES}.>"), "_INBOX.>".to_owned()]
}

/// Agents and the edge, which speaks for agents, are asked by schedulers only.
fn answers_to_scheduler() -> String {
    format!("{}.>", inbox(&Role::Scheduler.user()))
}

/// Reading streams and buckets: by direct get, and by ephemeral consumers.
fn reads() -> Vec<String> {
    owned(&[
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.MSG.GET.*",
        "$JS.API.DIRECT.GET.>",
        "$JS.API.CONSUMER.CREATE.>",
        "$JS.API.CONSUMER.DELETE.*.*",
        "$JS.FC.>",
    ])
}

/// Every way to read one bucket.
fn reads_of(bucket: &str) -> Vec<String> {
    vec![
        format!("$KV.{bucket}.>"),
        format!("$JS.API.STREAM.MSG.GET.KV_{bucket}"),
        format!("$JS.API.DIRECT.GET.KV_{bucket}"),
        format!("$JS.API.DIRECT.GET.KV_{bucket}.>"),
        format!("$JS.API.CONSUMER.CREATE.KV_{bucket}"),
        format!("$JS.API.CONSUMER.CREATE.KV_{bucket}.>"),
    ]
}

/// Creating and repairing streams and buckets.
fn creates() -> Vec<String> {
    owned(&["$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*"])
}

/// What the `nats` CLI asks before it shows anything.
fn lists() -> Vec<String> {
    owned(&[
        "$JS.API.INFO",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.NAMES",
        "$JS.API.CONSUMER.LIST.*",
        "$JS.API.CONSUMER.NAMES.*",
        "$JS.API.CONSUMER.INFO.*.*",
    ])
}

/// A password in a server's configuration.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself.
    Literal(String),
    /// An environment variable of the server that holds it.
    Environment(String),
}

impl Password {
    /// The password, or the name of its variable.
    pub fn text(&self) -> &str {
        match self {
            Self::Literal(text) | Self::Environment(text) => text,
        }
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal(***)"),
            Self::Environment(name) => write!(f, "Environment({name})"),
        }
    }
}

/// A user of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsUser {
    /// What it may do.
    pub role: Role,
    /// How it authenticates.
    pub password: Password,
}

/// A server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConf {
    /// Address and port.
    pub listen: String,
    /// Folder of the JetStream store.
    pub store_dir: String,
    /// How often the store is forced to disk: a duration, or `always`.
    pub sync_interval: String,
    /// First part of every subject.
    pub prefix: Prefix,
    /// Every user that may connect.
    pub users: Vec<NatsUser>,
}

/// A configuration file for nats-server.
pub fn render_nats_conf(conf: &NatsConf) -> String {
    let mut out = format!(
        "# nats-server for Quintet, generated by `quintet schemas --write` and `quintet up`. Needs 2.12 or newer.\n\n\
         listen: {}\n\n\
         jetstream {{\n    store_dir: {}\n    \
         # What is acknowledged survives the death of any process. It reaches the disk itself at this interval; `always`\n    \
         # survives a power cut of a single server, at about a sixth of the speed. A cluster of three needs neither.\n    \
         sync_interval: {}\n}}\n\n\
         authorization {{\n    users = [\n",
        quoted(&conf.listen),
        quoted(&conf.store_dir),
        quoted(&conf.sync_interval),
    );
    for user in &conf.users {
        let allowed = permissions(&user.role, &conf.prefix);
        let password = match &user.password {
            Password::Literal(text) => quoted(text),
            Password::Environment(name) => format!("${name}"),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "        {{\n            user: {}, password: {password}\n            permissions: {{\n",
            quoted(&user.role.user())
        );
        let publish = match allowed.publish.as_slice() {
            [] => "{ deny: [\">\"] }".to_owned(),
            subjects => format!("{{ allow: [{}]{} }}", list(subjects), denied(&allowed.deny)),
        };
        let _ = writeln!(out, "                publish: {publish}");
        let _ = writeln!(
            out,
            "                subscribe: {{ allow: [{}]{} }}",
            list(&allowed.subscribe),
            denied(&allowed.deny)
        );
        out.push_str("            }\n        }\n");
    }
    out.push_str("    ]\n}\n");
    out
}

fn denied(subjects: &[String]) -> String {
    match subjects {
        [] => String::new(),
        subjects => format!(", deny: [{}]", list(subjects)),
    }
}

fn list(subjects: &[String]) -> String {
    let lines: Vec<String> = subjects
        .iter()
        .map(|subject| format!("\n                    {}", quoted(subject)))
        .collect();
    format!("{}\n                ", lines.join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The configuration that is kept in the repository: passwords from the server's environment, one agent as an example.
pub fn example() -> NatsConf {
    let agent = AgentId::parse("agent-1").expect("a word is a name");
    let roles = Role::SERVICES.into_iter().chain([Role::Agent(agent)]);
    let users = roles.map(|role| {
        let name = role.user().to_ascii_uppercase().replace('-', "_");
        NatsUser {
            role,
            password: Password::Environment(format!("QUINTET_{name}_PASSWORD")),
        }
    });
    NatsConf {
        listen: "0.0.0.0:4222".to_owned(),
        store_dir: "/var/lib/nats".to_owned(),
        sync_interval: "2m".to_owned(),
        prefix: Prefix::default(),
        users: users.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_speak_only_as_itself() {
        let agent = Role::Agent(AgentId::parse("studio 1").unwrap());
        assert_eq!(agent.user(), "agent-studio=201");
        let allowed = permissions(&agent, &Prefix::default());
        assert!(
            allowed
                .publish
                .contains(&"quintet.report.agent.studio=201".to_owned())
        );
        let foreign =
            |subject: &&String| subject.contains(".agent.") && !subject.contains("studio=201");
        assert_eq!(allowed.publish.iter().find(foreign), None);
        assert!(
            !allowed
                .publish
                .iter()
                .any(|subject| subject.starts_with("$KV."))
        );
    }

    #[test]
    fn only_the_edge_reads_and_writes_secrets_and_writes_keys() {
        let prefix = Prefix::default();
        let agent = Role::Agent(AgentId::parse("a").unwrap());
        for role in Role::SERVICES.iter().chain([&agent]) {
            let of_role = permissions(role, &prefix);
            let is_edge = *role == Role::Edge;
            for way in reads_of(&Secrets::bucket(&prefix)) {
                assert_eq!(of_role.deny.contains(&way), !is_edge, "{role:?} {way}");
            }
            for bucket in ["$KV.quintet_access.", "$KV.quintet_secrets."] {
                let mut published = of_role.publish.iter();
                let writes = published.any(|subject| subject.starts_with(bucket));
                assert_eq!(writes, is_edge, "{role:?} {bucket}");
            }
        }
    }

    #[test]
    fn an_observer_may_publish_nothing() {
        let conf = NatsConf {
            users: vec![NatsUser {
                role: Role::Observer,
                password: Password::Environment("X".to_owned()),
            }],
            ..example()
        };
        let text = render_nats_conf(&conf);
        assert!(
            text.contains("publish: { deny: [\">\"] }") && text.contains("password: $X"),
            "{text}"
        );
    }
}
