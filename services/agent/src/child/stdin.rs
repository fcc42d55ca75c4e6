//! Standard input of a child: live commands, one after the other, and whether they were handled.

use std::convert::Infallible;
use std::time::Duration;

use quintet_contract::job::JobAttempt;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::LiveCommand;
use super::output::Replies;
use crate::core::Event;
use crate::ffmpeg::volume_command;

/// How long a child may take to read a command.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);
/// How long ffmpeg may take to answer the first time.
const FIRST_REPLY: Duration = Duration::from_secs(3);
/// How long further answers may take: each filter graph gives one.
const FURTHER_REPLIES: Duration = Duration::from_millis(300);

/// How a child is spoken to.
pub(super) enum Language {
    /// One line of JSON per command; nothing is answered.
    Json,
    /// ffmpeg's own.
    Ffmpeg(watch::Receiver<Replies>),
}

/// Serves until the child's handle is dropped; commands that come after its end fail.
pub(super) async fn serve(
    placement: JobAttempt,
    mut stdin: Option<ChildStdin>,
    mut language: Language,
    mut commands: mpsc::Receiver<LiveCommand>,
    events: mpsc::Sender<Event>,
) -> Result<(), Infallible> {
    while let Some(command) = commands.recv().await {
        let outcome = match (&mut stdin, &mut language) {
            (None, _) => Err("the program takes no commands".to_owned()),
            (Some(stdin), Language::Json) => write(stdin, &json_line(&command)).await,
            (Some(stdin), Language::Ffmpeg(replies)) => {
                set_volume(stdin, replies, command.command == "mute").await
            }
        };
        let event = Event::Controlled {
            placement: placement.clone(),
            command: command.command,
            answer: command.answer,
            outcome,
        };
        if events.send(event).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn json_line(command: &LiveCommand) -> String {
    let line = json!({"command": command.command, "args": command.args});
    format!("{line}\n")
}

async fn write(stdin: &mut ChildStdin, line: &str) -> Result<(), String> {
    let written = async {
        stdin.write_all(line.as_bytes()).await?;
        stdin.flush().await
    };
    match timeout(WRITE_DEADLINE, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("the program does not listen any more".to_owned()),
        Err(_) => Err("the program does not read its commands".to_owned()),
    }
}

async fn set_volume(
    stdin: &mut ChildStdin,
    replies: &mut watch::Receiver<Replies>,
    muted: bool,
) -> Result<(), String> {
    let before = *replies.borrow_and_update();
    write(stdin, volume_command(muted)).await?;
    let mut patience = FIRST_REPLY;
    loop {
        match timeout(patience, replies.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err("the job has ended".to_owned()),
            Err(_) if patience == FIRST_REPLY => return Err("ffmpeg did not answer".to_owned()),
            Err(_) => return Err("the stream has no audio".to_owned()),
        }
        if replies.borrow_and_update().obeyed > before.obeyed {
            return Ok(());
        }
        patience = FURTHER_REPLIES;
    }
}
