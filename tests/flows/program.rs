//! The program itself: `quintet up` on a nats-server of its own, and what operators do to it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use quintet_testkit::{Process, free_port, wait_for};
use quintet_tests::{Api, TIMEOUT, binary, run_to_end};
use serde_json::json;
use tempfile::TempDir;

/// A `quintet up` with everything in it.
pub(crate) struct Program {
    pub(crate) api: Api,
    process: Process,
    pub(crate) folder: TempDir,
    address: SocketAddr,
    environment: Vec<(String, String)>,
}

impl Program {
    pub(crate) async fn start(environment: &[(&str, &str)]) -> Self {
        let port = free_port().unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(owned).collect();
        Self::start_in(TempDir::new().unwrap(), port, environment).await
    }

    async fn start_in(folder: TempDir, port: u16, environment: Vec<(String, String)>) -> Self {
        let log = fs::File::create(folder.path().join("up.log")).unwrap();
        let mut command = Command::new(binary());
        command
            .args(["up", "--agents", "1", "--port", &port.to_string()])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .env_remove("NATS_URL")
            .env("AGENT_ID", "agent-1")
            .envs(environment.clone())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let process = Process::spawn(command).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let key = environment
            .iter()
            .find(|(name, _)| name == "ORCHESTRATOR_API_KEY");
        let api = Api::new(address);
        let api = match key {
            Some((_, key)) => api.with_key(key),
            None => api,
        };
        let log = folder.path().join("up.log");
        let ready = wait_for("the ready line", TIMEOUT, async || {
            let text = fs::read_to_string(&log).unwrap();
            let line = format!("ready http://127.0.0.1:{port}");
            if text.lines().filter(|found| *found == line).count() == 1 {
                Ok(())
            } else {
                Err(text)
            }
        });
        ready.await.unwrap();
        api.get("/ready").await.expect(200);
        let program = Self {
            api,
            process,
            folder,
            address,
            environment,
        };
        let agent = wait_for("an agent", TIMEOUT, async || {
            let agents = program.api.get("/v1/agents").await.body;
            if agents[0]["state"] != "OFFLINE" && agents[0]["id"] == "agent-1" {
                Ok(())
            } else {
                Err(agents.to_string())
            }
        });
        agent.await.unwrap();
        program
    }

    /// Kills it without notice, and starts it again on the same data, port and settings.
    pub(crate) async fn kill_and_restart(mut self) -> Self {
        self.process.kill().unwrap();
        let folder = self.folder.path().to_owned();
        let gone = wait_for(
            "every process of the old program to be gone",
            TIMEOUT,
            async || match of_folder(&folder) {
                found if found.is_empty() => Ok(()),
                found => Err(format!("{found:?}")),
            },
        );
        gone.await.unwrap();
        Self::start_in(self.folder, self.address.port(), self.environment).await
    }
}

/// Processes whose command line names this folder.
fn of_folder(folder: &Path) -> Vec<String> {
    let wanted = folder.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&wanted))
        .collect()
}

#[tokio::test]
async fn up_runs_a_job_on_a_server_of_its_own_and_survives_the_kill_of_everything() {
    let program = Program::start(&[]).await;
    let done = program
        .api
        .submit(json!({"inlineConfig": {"command": ["echo", "hi"]}, "idempotencyKey": "k"}))
        .await;
    let done = done["id"].as_str().unwrap().to_owned();
    program.api.until(&done, "STOPPED").await;
    let running =
        json!({"inlineConfig": {"command": ["sleep", "1000"]}, "restartPolicy": "onFailure"});
    let running = program.api.submit(running).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    program.api.until(&running, "RUNNING").await;
    program
        .api
        .post("/v1/agents/agent-1/drain", json!({"drain": true}))
        .await
        .expect(200);

    let program = program.kill_and_restart().await;
    assert_eq!(program.api.job(&done).await["status"], "STOPPED");
    let again = program
        .api
        .post(
            "/v1/jobs",
            json!({"inlineConfig": {}, "idempotencyKey": "k"}),
        )
        .await
        .expect(200);
    assert_eq!(again.body["id"], json!(done));
    assert_eq!(
        program.api.get("/v1/agents/agent-1").await.body["drain"],
        true,
        "the flag is the operator's"
    );
    program
        .api
        .post("/v1/agents/agent-1/drain", json!({"drain": false}))
        .await
        .expect(200);
    // Its agent died with everything and came back without it: by its policy it starts again.
    let job = wait_for("the job to run again", TIMEOUT, async || {
        let job = program.api.job(&running).await;
        if job["status"] == "RUNNING" && job["attempt"] == 2 {
            Ok(())
        } else {
            Err(job.to_string())
        }
    });
    job.await.unwrap();
}

#[tokio::test]
async fn the_command_line_submits_watches_lists_and_refuses() {
    let program = Program::start(&[]).await;
    let url = program.api.url("");
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["--url", &url]).args(arguments);
        let output = run_to_end(command, &[]).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, out, err) = run(&[
        "jobs", "submit", "--wait", "--output", "json", "--exec", "--", "echo", "hi",
    ])
    .await;
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = run(&["jobs", "list", "--output", "json"]).await;
    assert_eq!(code, Some(0), "{err}");
    let jobs: serde_json::Value = serde_json::from_str(&out).unwrap();
    let id = jobs[0]["id"].as_str().unwrap();
    assert_eq!(jobs[0]["status"], "STOPPED");
    let (code, out, err) = run(&["jobs", "logs", id]).await;
    assert_eq!((code, out.as_str()), (Some(0), "hi\n"), "{err}");
    let (code, out, _) = run(&["agents", "list"]).await;
    assert!(code == Some(0) && out.contains("agent-1"), "{out}");
    let (code, _, err) = run(&["jobs", "get", "unknown"]).await;
    assert!(
        code == Some(3) && err.contains("Not Found"),
        "{code:?} {err}"
    );
    let (code, out, err) = run(&["jobs", "submit", "--wait", "--exec", "--", "false"]).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert_eq!(
        decoded(b"\x81\xa5hello\xa5world").await,
        "{\"hello\":\"world\"}\n"
    );
    assert_eq!(decoded(b"").await, "");
    let mut command = Command::new(binary());
    command.args(["jobs", "list", "--url", "http://127.0.0.1:1"]);
    let output = run_to_end(command, &[]).await;
    assert_eq!(
        output.status.code(),
        Some(5),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What `quintet decode` makes of a message, as `nats sub --translate` would start it.
async fn decoded(message: &[u8]) -> String {
    let mut command = Command::new(binary());
    command.arg("decode");
    String::from_utf8(run_to_end(command, message).await.stdout).unwrap()
}
