//! The program as a shell sees it: what `up` prints, refuses, keeps running, and takes along when it ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use quintet_testkit::{Process, free_port, wait_for};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The program, without the environment of the test.
fn quintet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    command
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
        .stdin(Stdio::null());
    command
}

async fn run(arguments: &[&str]) -> Output {
    let mut command = quintet(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running `up` in a process group of its own, as a shell would start it.
struct Up {
    process: Process,
    folder: TempDir,
    url: String,
}

impl Up {
    /// Starts it, and reads the line with its address.
    async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap()).await
    }

    async fn start_in(folder: TempDir) -> Self {
        let log = fs::File::create(folder.path().join("up.log")).unwrap();
        let out = fs::File::create(folder.path().join("up.out")).unwrap();
        let data = data(&folder);
        let mut command = quintet(&["up", "--port", "0", "--data-dir", data.to_str().unwrap()]);
        command.stdout(out).stderr(log).process_group(0);
        let process = Process::spawn(command).unwrap();
        let ready = wait_for("the ready line", TIMEOUT, async || {
            let out = fs::read_to_string(folder.path().join("up.out")).unwrap();
            match out
                .strip_prefix("ready ")
                .and_then(|rest| rest.strip_suffix('\n'))
            {
                Some(url) => Ok(url.to_owned()),
                None => Err(fs::read_to_string(folder.path().join("up.log")).unwrap()),
            }
        });
        let url = ready.await.unwrap();
        Self {
            process,
            folder,
            url,
        }
    }

    fn data(&self) -> PathBuf {
        data(&self.folder)
    }

    async fn client(&self, arguments: &[&str]) -> Output {
        run(&[&["--url", &self.url], arguments].concat()).await
    }

    /// The nats-server that it started.
    async fn server(&self) -> Pid {
        let found = wait_for("one nats-server", TIMEOUT, async || {
            match servers(&self.data()).as_slice() {
                [pid] => Ok(*pid),
                other => Err(format!("{other:?}")),
            }
        });
        found.await.unwrap()
    }

    async fn until_no_server(&self) {
        let gone = wait_for("nats-server to be gone", TIMEOUT, async || {
            match servers(&self.data()).as_slice() {
                [] => Ok(()),
                left => Err(format!("{left:?}")),
            }
        });
        gone.await.unwrap();
    }

    /// Runs a job to its end, which needs every part.
    async fn runs_a_job(&self) {
        let submit = ["jobs", "submit", "--wait", "--exec", "--", "true"];
        let output = self.client(&submit).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

fn data(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// Processes that were started with the configuration in this folder and are no zombies.
fn servers(data: &Path) -> Vec<Pid> {
    let wanted = data.join("nats.conf").to_string_lossy().into_owned();
    let started = |entry: fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        text(&line).contains(&wanted).then(|| Pid::from_raw(pid))?
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(started).collect()
}

#[tokio::test]
async fn a_signal_to_the_group_ends_everything_and_until_then_no_other_process_gets_the_folder() {
    let mut up = Up::start().await;
    let data = up.data();
    let folder = data.to_str().unwrap();

    let second = run(&["up", "--port", "0", "--data-dir", folder]).await;
    let output = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{output}");
    assert!(
        output.contains("in use by another `quintet up`"),
        "{output}"
    );

    up.runs_a_job().await;
    let doctor = ["doctor", "--data-dir", folder, "--output", "json"];
    let doctor = up.client(&doctor).await;
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&doctor.stdout).unwrap();
    assert!(doctor.status.success(), "{findings:#?}");
    for what in ["NATS", "scheduler of pool default", "agents", "clock"] {
        let found = findings.iter().find(|finding| finding["what"] == what);
        assert_eq!(found.unwrap()["state"], "ok", "{findings:#?}");
    }

    let group = Pid::from_raw(up.process.id().try_into().unwrap()).unwrap();
    kill_process_group(group, Signal::TERM).unwrap();
    let status = up.process.wait(TIMEOUT).await.unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(servers(&data), []);
    assert!(
        !data.join("connection.json").exists(),
        "there is no NATS any more to connect to"
    );
    let out = fs::read_to_string(up.folder.path().join("up.out")).unwrap();
    assert_eq!(out, format!("ready {}\n", up.url), "one line and no more");
}

#[tokio::test]
async fn a_nats_server_that_dies_is_started_again_and_one_whose_program_dies_is_not_left_behind() {
    let mut up = Up::start().await;
    up.runs_a_job().await;
    let first = up.server().await;
    kill_process(first, Signal::KILL).unwrap();
    let again = wait_for("another nats-server", TIMEOUT, async || {
        let now = up.server().await;
        if now == first {
            Err("the first is still there")
        } else {
            Ok(())
        }
    });
    again.await.unwrap();
    up.runs_a_job().await;

    up.process.kill().unwrap();
    up.until_no_server().await;
    let up = Up::start_in(up.folder).await;
    up.runs_a_job().await;
}

/// What `up --demo` writes to its log until the demonstration has ended, which it does at once without ffmpeg.
async fn log_of_demo(environment: &[(&str, &str)]) -> String {
    let folder = TempDir::new().unwrap();
    let (data, log) = (data(&folder), folder.path().join("up.log"));
    let none = folder.path().join("no-ffmpeg");
    let arguments = [
        "up",
        "--demo",
        "--port",
        "0",
        "--ffmpeg",
        none.to_str().unwrap(),
    ];
    let mut command = quintet(&arguments);
    command
        .arg("--data-dir")
        .arg(&data)
        .envs(environment.iter().copied());
    let file = fs::File::create(&log).unwrap();
    command.stdout(Stdio::null()).stderr(file);
    let mut process = Process::spawn(command).unwrap();
    let ended = wait_for("the demonstration to end", TIMEOUT, async || {
        let log = fs::read_to_string(&log).unwrap();
        match log.contains("demo: there is no") {
            true => Ok(log),
            false => Err(log),
        }
    });
    let log = ended.await.unwrap();
    process.signal(Signal::TERM).unwrap();
    assert!(process.wait(TIMEOUT).await.unwrap().success());
    log
}

#[tokio::test]
async fn the_lines_of_the_demonstration_stand_alone_unless_a_log_is_asked_for() {
    let log = log_of_demo(&[]).await;
    assert!(log.contains("quintet: starting nats-server\n"), "{log}");
    assert!(log.contains("  dashboard   http://"), "{log}");
    assert!(!log.contains("INFO"), "{log}");
    let log = log_of_demo(&[("LOG_LEVEL", "info")]).await;
    assert!(log.contains("\"level\":\"INFO\""), "{log}");
}

#[tokio::test]
async fn a_password_of_nats_is_never_printed() {
    let nats = quintet_testkit::Nats::options()
        .config("authorization { user: me, password: hunter2 }")
        .start()
        .await
        .unwrap();
    let secret = nats.url().replacen("://", "://me:hunter2@", 1);
    let folder = TempDir::new().unwrap();
    let data = data(&folder);
    let data = data.to_str().unwrap();
    let nowhere = "nats://me:hunter2@127.0.0.1:1";
    for (arguments, expected) in [
        (
            &["up", "--print-config", "--nats-url", &secret][..],
            "nats://127",
        ),
        (
            &["doctor", "--print-config", "--nats-url", &secret],
            "nats://127",
        ),
        (
            &["doctor", "--data-dir", data, "--nats-url", &secret],
            "NATS",
        ),
        (
            &["doctor", "--data-dir", data, "--nats-url", nowhere],
            "127.0.0.1:1",
        ),
        (&["tap", "--nats-url", nowhere], "127.0.0.1:1"),
        (
            &["jobs", "list", "--url", "http://me:hunter2@127.0.0.1:1"],
            "127.0.0.1:1",
        ),
    ] {
        let output = run(arguments).await;
        let output = text(&output.stdout) + &text(&output.stderr);
        assert!(output.contains(expected), "{arguments:?}: {output}");
        assert!(!output.contains("hunter2"), "{arguments:?}: {output}");
    }
}

#[tokio::test]
async fn closing_the_output_does_not_end_the_program() {
    let (folder, port) = (TempDir::new().unwrap(), free_port().unwrap().to_string());
    let data = data(&folder);
    let mut command = quintet(&["up", "--port", &port, "--data-dir", data.to_str().unwrap()]);
    let log = folder.path().join("up.log");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command
        .stdout(writer)
        .stderr(fs::File::create(&log).unwrap());
    let mut process = Process::spawn(command).unwrap();
    let url = format!("http://127.0.0.1:{port}");
    // The line is written before this is logged.
    let ready = wait_for("the line after the ready line", TIMEOUT, async || {
        let log = fs::read_to_string(&log).unwrap();
        if log.contains(r#""message":"ready""#) {
            Ok(())
        } else {
            Err(log)
        }
    });
    ready.await.unwrap();
    let listed = run(&["--url", &url, "agents", "list"]).await;
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    process.signal(Signal::TERM).unwrap();
    assert!(process.wait(TIMEOUT).await.unwrap().success());
}

#[tokio::test]
async fn a_command_whose_reader_has_read_enough_ends_without_a_complaint() {
    for arguments in [&["settings"][..], &["nats-conf"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = quintet(arguments);
        command.stdout(writer);
        let ended =
            tokio::task::spawn_blocking(move || command.stderr(Stdio::piped()).output().unwrap());
        let ended = ended.await.unwrap();
        assert!(ended.status.success(), "{arguments:?}: {}", ended.status);
        assert_eq!(text(&ended.stderr), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn a_password_that_nats_refuses_ends_a_part_at_once() {
    let nats = quintet_testkit::Nats::options()
        .config("authorization { user: me, password: right }")
        .start()
        .await
        .unwrap();
    let mut part = quintet(&["serve", "scheduler", "--nats-url", &nats.url()]);
    part.envs([("NATS_USER", "me"), ("NATS_PASSWORD", "wrong")]);
    let ended = tokio::task::spawn_blocking(move || part.output().unwrap());
    let ended = tokio::time::timeout(TIMEOUT / 2, ended)
        .await
        .expect("it does not wait")
        .unwrap();
    let output = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(5), "{output}");
    assert!(output.contains("refuses the credentials"), "{output}");
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_once_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let file = path("quintet.toml");
    fs::write(&file, "prot = 8080\n").unwrap();
    let old = path("old-server");
    script(Path::new(&old), "#!/bin/sh\necho nats-server: v2.11.9\n");
    // Held until the end of the test.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    let long_id = "a".repeat(127);
    let none = path("no-server");
    let cases: [(&[&str], i32, &str); 10] = [
        (&["--host", "0.0.0.0"], 2, "--insecure-dev"),
        (&["--host", "0.0.0.0", "--agent-token", "t"], 2, "API_KEYS"),
        (&["--host", "localhost"], 2, "such as 127.0.0.1"),
        (&["--config", &file], 2, "prot"),
        (&["--nats-server", &none], 1, "go install"),
        (&["--nats-server", &old], 1, "which is too old"),
        (&["--nats-port", &taken], 1, "--nats-port"),
        (&["--nats-sync-interval", "soon"], 1, "sync_interval"),
        (&["--agents", "3", "--agent-id", &long_id], 2, "AGENT_ID"),
        (&["--no-such-flag"], 2, "--no-such-flag"),
    ];
    for (arguments, code, expected) in cases {
        let data = path("data");
        let common = ["up", "--port", "0", "--data-dir", &data];
        let mut command = quintet(&[&common[..], arguments].concat());
        let log = fs::File::create(path("log")).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        let mut process = Process::spawn(command).unwrap();
        let status = process.wait(TIMEOUT / 2).await.unwrap();
        let output = fs::read_to_string(path("log")).unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}: {output}");
        assert!(output.contains(expected), "{arguments:?}: {output}");
    }
}

fn script(path: &Path, content: &str) {
    let mut options = fs::File::options();
    let mut file = options
        .create_new(true)
        .write(true)
        .mode(0o700)
        .open(path)
        .unwrap();
    file.write_all(content.as_bytes()).unwrap();
}
