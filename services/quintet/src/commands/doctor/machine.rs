//! Checks of this machine: programs that others start, and the data folder of `up`.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::finding::{Findings, State};
use crate::launch::data_dir::exposed;
use crate::launch::embedded_nats::check_version;

/// Checks the nats-server that `up` would start, and the programs that record video.
pub(super) async fn check_programs(
    nats_server: Option<&Path>,
    ffmpeg: &Path,
    findings: &mut Findings,
) {
    match nats_server {
        None => findings.skip("natsServer", "nats-server", "a NATS is named"),
        Some(program) => {
            let what = program.display().to_string();
            match check_version(program).await {
                Ok(version) => {
                    findings.add("natsServer", what, State::Ok, format!("version {version}"));
                }
                Err(error) => findings.add("natsServer", what, State::Warn, error.to_string()),
            }
        }
    }
    for (check, program) in [("ffmpeg", ffmpeg), ("ffprobe", Path::new("ffprobe"))] {
        let status = Command::new(program)
            .arg("-version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
        let (state, message) = match status {
            Ok(status) if status.success() => (State::Ok, "found"),
            _ => (
                State::Warn,
                "not found; jobs that record video need it: sudo apt-get install ffmpeg",
            ),
        };
        findings.add(check, program.display().to_string(), state, message);
    }
}

/// Checks that only its owner may read the secrets that `up` keeps.
pub(super) fn check_data_dir(folder: &Path, findings: &mut Findings) {
    let what = format!("data folder {}", folder.display());
    if !folder.exists() {
        let message = "not there yet; `quintet up` makes it";
        return findings.add("dataDir", what, State::Ok, message);
    }
    match exposed(folder).as_slice() {
        [] => findings.add(
            "dataDir",
            what,
            State::Ok,
            "its secrets are its owner's only",
        ),
        files => {
            let message = format!(
                "others may read {}; run chmod 600 on them",
                files.join(", ")
            );
            findings.add("dataDir", what, State::Fail, message);
        }
    }
}
