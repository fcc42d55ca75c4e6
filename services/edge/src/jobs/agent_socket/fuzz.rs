//! One agent's socket for the fuzzer: frames and messages of the bus in between, without either.

use quintet_bus::decode;
use quintet_contract::agent::AgentSettings;
use quintet_contract::event::MAX_LOG_LINE_BYTES;
use quintet_contract::id::MessageId;
use quintet_contract::socket::Envelope;
use quintet_contract::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::core::{Core, FrameStamp, Inbound, Outbound};

/// A line that begins so comes from the bus: an offer of a job, or a command.
const FROM_BUS: u8 = b'<';
/// When everything happens.
const NOW: Timestamp = Timestamp::from_millis(1_704_067_200_005);
const STAMP: FrameStamp = FrameStamp {
    id: MessageId::from_uuid(Uuid::nil()),
    at: NOW,
};

/// One session, a line each: frames of the agent, and after `<` what the bus has for it.
pub fn agent_session(input: &[u8]) {
    let mut core = Core::default();
    assert_envelope(&core.welcome(AgentSettings::default(), STAMP));
    for line in input.split(|byte| *byte == b'\n') {
        match line.split_first() {
            Some((&FROM_BUS, message)) => send(&mut core, message),
            Some(_) | None => receive(&mut core, line),
        }
        let jobs = core.jobs();
        assert!(
            jobs.windows(2).all(|pair| pair[0].job_id < pair[1].job_id),
            "a job is listed once"
        );
    }
}

fn receive(core: &mut Core, frame: &[u8]) {
    match core.receive(frame, NOW) {
        Inbound::Ignored(_) | Inbound::Heartbeat(_) => {}
        Inbound::Hello(hello) => {
            let agent = hello.agent_id.clone();
            let hello = core.greet(*hello);
            assert!(core.speaks_for(&agent));
            assert!(core.jobs().len() <= hello.active_jobs.len());
        }
        Inbound::Report(report) | Inbound::Muted { report, .. } => {
            let before = core.jobs();
            let changed = core.stored(std::slice::from_ref(&report));
            assert!(changed || core.jobs() == before);
        }
        Inbound::Log(log) => assert!(
            log.lines
                .iter()
                .all(|line| line.line.len() <= MAX_LOG_LINE_BYTES),
            "a line is cut to what the stream takes"
        ),
    }
}

fn send(core: &mut Core, message: &[u8]) {
    if let Ok((assignment, _)) = decode(message) {
        assert_envelope(&core.offer(assignment, STAMP));
    } else if let Ok((command, _)) = decode(message) {
        match core.command(command, STAMP) {
            Outbound::Notify(frame) | Outbound::Request { frame, .. } => assert_envelope(&frame),
            Outbound::Reject(error) => assert!(error.code.http_status() < 500, "{error:?}"),
        }
    } else if let Ok((placement, _)) = decode(message) {
        assert_envelope(&core.kill(&placement, STAMP));
    }
}

/// What we send is a whole frame.
fn assert_envelope(frame: &str) {
    let envelope: Envelope<Value> = serde_json::from_str(frame).expect("we send valid frames");
    assert!(envelope.kind.starts_with("orchestrator.") && envelope.payload.is_object());
}
