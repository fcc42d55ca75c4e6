//! Both backends of the test server, against a real client.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use quintet_testkit::nats::Backend;
use quintet_testkit::{Nats, Process, wait_for};

const DEADLINE: Duration = Duration::from_secs(20);

async fn stored_messages(jetstream: &jetstream::Context) -> Result<u64, String> {
    let stream = jetstream
        .get_stream("KEPT")
        .await
        .map_err(|error| error.to_string())?;
    Ok(stream.cached_info().state.messages)
}

async fn keeps_its_data_and_port(backend: Backend) {
    let mut nats = Nats::options().backend(backend).start().await.unwrap();
    assert_eq!(nats.backend(), backend);
    let (url, port) = (nats.url(), nats.client_port());

    let client = async_nats::connect(&url).await.unwrap();
    let jetstream = jetstream::new(client.clone());
    let config = jetstream::stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept".into()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    jetstream
        .publish("kept", "one".into())
        .await
        .unwrap()
        .await
        .unwrap();

    nats.kill().await.unwrap();
    assert!(
        tokio::net::TcpStream::connect((nats.host(), port))
            .await
            .is_err(),
        "a killed server listens no more"
    );
    nats.restart().await.unwrap();
    assert_eq!(nats.client_port(), port);
    let kept = wait_for("the stream after a kill", DEADLINE, async || {
        stored_messages(&jetstream).await
    })
    .await;
    assert_eq!(kept.unwrap(), 1);

    jetstream
        .publish("kept", "two".into())
        .await
        .unwrap()
        .await
        .unwrap();
    nats.restart().await.unwrap();
    let kept = wait_for("the stream after a restart", DEADLINE, async || {
        stored_messages(&jetstream).await
    })
    .await;
    assert_eq!(kept.unwrap(), 2);
}

async fn answers_again_after_a_pause(backend: Backend) {
    let mut nats = Nats::options().backend(backend).start().await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    nats.pause().await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(200), client.flush_and_pong()).await;
    assert!(silence.is_err(), "a paused server answered");
    nats.resume().await.unwrap();
    tokio::time::timeout(DEADLINE, client.flush_and_pong())
        .await
        .expect("an answer after the pause");
    // A paused server can be stopped and started again, too.
    nats.pause().await.unwrap();
    nats.restart().await.unwrap();
}

/// One round trip to the server, with nothing but publish and subscribe.
trait Pong {
    async fn flush_and_pong(&self);
}

impl Pong for async_nats::Client {
    async fn flush_and_pong(&self) {
        use futures::StreamExt;
        let mut echo = self.subscribe("pong").await.unwrap();
        self.publish("pong", "".into()).await.unwrap();
        echo.next().await.unwrap();
    }
}

async fn takes_a_configuration(backend: Backend) {
    let config = r#"authorization { users: [ { user: "one", password: "secret" } ] }"#;
    let nats = Nats::options()
        .backend(backend)
        .config(config)
        .start()
        .await
        .unwrap();
    assert!(
        async_nats::connect(nats.url()).await.is_err(),
        "a stranger got in"
    );
    let known = async_nats::ConnectOptions::with_user_and_password("one".into(), "secret".into());
    known
        .connect(nats.url())
        .await
        .unwrap()
        .flush_and_pong()
        .await;
}

async fn reports_why_it_does_not_start(backend: Backend) {
    let failure = Nats::options()
        .backend(backend)
        .config("no_such_setting: [")
        .start()
        .await
        .unwrap_err();
    let failure = format!("{failure:#}");
    assert!(failure.contains("Parse error on line 1"), "{failure}");
}

#[tokio::test]
async fn a_local_server_keeps_its_data_and_port() {
    keeps_its_data_and_port(Backend::Binary).await;
}

#[tokio::test]
async fn a_container_keeps_its_data_and_port() {
    keeps_its_data_and_port(Backend::Docker).await;
}

#[tokio::test]
async fn a_local_server_answers_again_after_a_pause() {
    answers_again_after_a_pause(Backend::Binary).await;
}

#[tokio::test]
async fn a_container_answers_again_after_a_pause() {
    answers_again_after_a_pause(Backend::Docker).await;
}

#[tokio::test]
async fn a_local_server_takes_a_configuration() {
    takes_a_configuration(Backend::Binary).await;
}

#[tokio::test]
async fn a_container_takes_a_configuration() {
    takes_a_configuration(Backend::Docker).await;
}

#[tokio::test]
async fn a_local_server_reports_why_it_does_not_start() {
    reports_why_it_does_not_start(Backend::Binary).await;
}

#[tokio::test]
async fn a_container_reports_why_it_does_not_start() {
    reports_why_it_does_not_start(Backend::Docker).await;
}

#[tokio::test]
async fn a_test_that_panics_leaves_no_server() {
    let (sender, ports) = tokio::sync::oneshot::channel();
    let panicked = tokio::spawn(async move {
        let nats = Nats::start().await.unwrap();
        sender
            .send((nats.host().to_owned(), nats.client_port()))
            .unwrap();
        panic!("as tests do");
    });
    let (host, port) = ports.await.unwrap();
    assert!(panicked.await.unwrap_err().is_panic());
    assert!(
        tokio::net::TcpStream::connect((host, port)).await.is_err(),
        "the server outlived its test"
    );
}

/// Runs inside the child of the next test; alone it does nothing.
const ROLE_VARIABLE: &str = "QUINTET_TESTKIT_ROLE";

#[test]
fn holder_of_a_grandchild() {
    if std::env::var(ROLE_VARIABLE).is_err() {
        return;
    }
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let grandchild = Process::spawn(sleep).unwrap();
    println!("grandchild {} ", grandchild.id());
    std::thread::park();
}

#[tokio::test]
async fn a_child_dies_with_a_test_process_that_is_killed() {
    let folder = std::env::temp_dir().join(format!("quintet-testkit-{}", std::process::id()));
    let output = std::fs::File::create(&folder).unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder
        .args(["--exact", "holder_of_a_grandchild", "--nocapture"])
        .env(ROLE_VARIABLE, "holder")
        .stdout(output);
    let mut holder = Process::spawn(holder).unwrap();
    let grandchild: u32 = wait_for("the grandchild's id", DEADLINE, async || {
        let text = std::fs::read_to_string(&folder).unwrap();
        let id = text.split_once("grandchild ")?.1;
        id.split_once(' ')?.0.parse().ok()
    })
    .await
    .unwrap();
    std::fs::remove_file(&folder).unwrap();

    holder.kill().unwrap();
    wait_for("the grandchild to be gone", DEADLINE, async || {
        is_gone(grandchild)
    })
    .await
    .unwrap();
}

/// Gone, or a zombie that is not reaped yet.
fn is_gone(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}
