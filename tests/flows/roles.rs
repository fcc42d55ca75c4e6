//! Users and permissions as `nats.conf` has them, on a real server: each role can do its part and nothing else.

use std::time::Duration;

use quintet_agent::AgentConfig;
use quintet_bus::{Bus, BusConfig, Credentials, Secret, new_session};
use quintet_contract::agent::Heartbeat;
use quintet_contract::api::{JobRef, ListJobs};
use quintet_contract::bucket::{Jobs, SecretKey, Secrets};
use quintet_contract::id::{AgentId, HolderId, JobId, PoolName, WorkerId};
use quintet_contract::permission::{NatsUser, Password, Role, example, render_nats_conf};
use quintet_contract::subject::{AgentHeartbeat, ListJobsOf, StopJob};
use quintet_edge::EdgeConfig;
use quintet_frames::FramesConfig;
use quintet_runner::RunnerConfig;
use quintet_scheduler::SchedulerConfig;
use quintet_service::telemetry::Telemetry;
use quintet_testkit::Nats;
use quintet_tests::{Api, TIMEOUT};
use quintet_workers::RunWorkerConfig;
use quintet_workers::effects::EffectsConfig;
use serde_json::json;
use tempfile::TempDir;

use quintet::system::{BusSettings, Part, RoleCredentials, System, SystemConfig};

fn agent(name: &str) -> AgentId {
    AgentId::parse(name).unwrap()
}

fn credentials(role: &Role) -> Credentials {
    let user = role.user();
    let password = Secret::new(format!("secret of {user}"));
    Credentials::UserPassword { user, password }
}

/// A server with the users of the committed configuration, and a second agent.
async fn server() -> Nats {
    let mut conf = example();
    conf.users.push(NatsUser {
        role: Role::Agent(agent("agent-2")),
        password: Password::Literal(String::new()),
    });
    for user in &mut conf.users {
        user.password = Password::Literal(format!("secret of {}", user.role.user()));
    }
    let text = render_nats_conf(&conf);
    // Port and store are the test kit's business.
    let (_, users) = text.split_once("authorization {").unwrap();
    Nats::options()
        .config(format!("authorization {{{users}"))
        .start()
        .await
        .unwrap()
}

async fn connect(nats: &Nats, role: &Role) -> Result<Bus, quintet_bus::ConnectError> {
    let settings = BusSettings {
        credentials: credentials(role).into(),
        ..BusSettings::open(nats.url())
    };
    let config: BusConfig = settings.config(&Role::Edge);
    Bus::connect(config).await
}

#[tokio::test]
async fn the_whole_system_works_with_the_permissions_of_its_roles_and_no_role_can_do_more() {
    let nats = server().await;
    let one = agent("agent-1");
    let each = [
        (Role::Edge, credentials(&Role::Edge)),
        (Role::Scheduler, credentials(&Role::Scheduler)),
        (Role::Runner, credentials(&Role::Runner)),
        (Role::Frames, credentials(&Role::Frames)),
        (Role::Worker, credentials(&Role::Worker)),
        (
            Role::Agent(one.clone()),
            credentials(&Role::Agent(one.clone())),
        ),
    ];
    let folder = TempDir::new().unwrap();
    let mut run_worker = RunWorkerConfig::new(WorkerId::parse("w").unwrap());
    run_worker.work_dir = folder.path().to_owned();
    let config = SystemConfig {
        bus: BusSettings {
            credentials: RoleCredentials::Each(each.into()),
            ..BusSettings::open(nats.url())
        },
        parts: vec![
            Part::Edge(EdgeConfig::new(([127, 0, 0, 1], 0).into())),
            Part::Scheduler(SchedulerConfig::new(HolderId::parse("test").unwrap())),
            Part::Runner(RunnerConfig::new(HolderId::parse("test").unwrap())),
            Part::Frames(FramesConfig::new(HolderId::parse("test").unwrap())),
            Part::Agent(AgentConfig::new(one)),
            Part::RunWorker(run_worker),
            Part::Effects(EffectsConfig::default()),
        ],
        metrics: None,
    };
    let system = System::start(config, Telemetry::for_tests().prometheus())
        .await
        .unwrap();
    system.ready(TIMEOUT).await.unwrap();
    let api = Api::new(system.address().unwrap());
    let job = api
        .submit(json!({"inlineConfig": {"command": ["echo", "hi"]}, "idempotencyKey": "k"}))
        .await;
    let id = job["id"].as_str().unwrap();
    api.until(id, "STOPPED").await;
    assert_eq!(api.get(&format!("/v1/jobs/{id}/logs")).await.text, "hi\n");
    let id = JobId::parse(id).unwrap();

    // A person may ask and read.
    let operator = connect(&nats, &Role::Operator).await.unwrap();
    let pool = PoolName::default;
    let page = operator
        .request_until(&ListJobsOf { pool: pool() }, &ListJobs::default(), TIMEOUT)
        .await
        .unwrap();
    assert_eq!(page.jobs.len(), 1);
    let found = operator.bucket::<Jobs>().get(&id).await.unwrap().unwrap();
    assert!(
        operator.bucket::<Jobs>().delete(&id, None).await.is_err(),
        "an operator writes no bucket"
    );

    // The secret that the edge signs with is read by no other role, also by none that reads buckets in general.
    let signing = SecretKey::EdgeSigning;
    let edge = connect(&nats, &Role::Edge).await.unwrap();
    let stored = edge.bucket::<Secrets>().get(&signing).await.unwrap();
    assert_eq!(stored.unwrap().record.secret.expose().len(), 32);
    for role in [Role::Operator, Role::Runner] {
        let bus = connect(&nats, &role).await.unwrap();
        let read = bus.bucket::<Secrets>().get(&signing).await;
        assert!(read.is_err(), "{role:?}");
    }

    // An observer, a worker and an agent may not send requests, and only the scheduler writes a bucket.
    let short = Duration::from_millis(500);
    for role in [Role::Observer, Role::Worker, Role::Agent(agent("agent-2"))] {
        let bus = connect(&nats, &role).await.unwrap();
        assert!(
            bus.request(&StopJob { pool: pool() }, &JobRef { id: id.clone() }, short)
                .await
                .is_err(),
            "{role:?}"
        );
        assert!(
            bus.bucket::<Jobs>().delete(&id, None).await.is_err(),
            "{role:?}"
        );
    }
    let after = operator.bucket::<Jobs>().get(&id).await.unwrap().unwrap();
    assert_eq!(after.revision, found.revision, "nothing was written");

    // An agent speaks for itself, and not for another.
    let two = connect(&nats, &Role::Agent(agent("agent-2")))
        .await
        .unwrap();
    let heartbeat = Heartbeat {
        session: new_session(),
        clock: 1,
        jobs: None,
        metrics: Default::default(),
    };
    let of = |name: &str| AgentHeartbeat {
        agent: agent(name),
        pool: pool(),
    };
    assert!(
        two.request(&of("agent-2"), &heartbeat, TIMEOUT)
            .await
            .is_ok()
    );
    assert!(
        two.request(&of("agent-1"), &heartbeat, short)
            .await
            .is_err()
    );

    // A wrong password opens nothing.
    let wrong = Credentials::UserPassword {
        user: "edge".to_owned(),
        password: Secret::new("wrong"),
    };
    let settings = BusSettings {
        credentials: wrong.into(),
        ..BusSettings::open(nats.url())
    };
    assert!(Bus::connect(settings.config(&Role::Edge)).await.is_err());
    let report = system.shutdown(TIMEOUT).await;
    assert!(report.is_clean(), "{report:?}");
}
