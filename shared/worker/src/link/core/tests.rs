use quintet_contract::id::{AgentId, JobId, PoolName};
use quintet_contract::job::{Attempt, JobStatus};
use quintet_contract::time::Timestamp;
use uuid::Uuid;

use super::*;

const INTERVAL: u64 = 3;
const TIMEOUT: u64 = 10;

fn now(seconds: u64) -> Now {
    Now {
        moment: at(seconds),
        wall: Timestamp::from_millis(seconds as i64 * 1000),
    }
}

fn at(seconds: u64) -> Moment {
    Moment::from_start(Duration::from_secs(seconds))
}

fn session(number: u128) -> AgentSession {
    AgentSession::from_uuid(Uuid::from_u128(number))
}

fn goodbye(reason: &str) -> AgentReport {
    AgentReport::Goodbye {
        reason: reason.to_owned(),
    }
}

fn fresh(mode: HeartbeatMode) -> Core {
    let identity = AgentIdentity {
        agent: AgentId::parse("a").unwrap(),
        pool: PoolName::default(),
    };
    let hello = Hello {
        name: "a".to_owned(),
        version: "1".to_owned(),
        capabilities: JsonObject::new(),
        drain: false,
        active_jobs: Vec::new(),
        meta: JsonObject::new(),
    };
    Core::new(identity, hello, mode)
}

fn reply(status: SessionStatus) -> Answer<ReportsReply> {
    Answer::Reply(ReportsReply {
        status,
        settings: Some(AgentSettings::default()),
        ..ReportsReply::default()
    })
}

fn answered(sent: u64, answer: Answer<ReportsReply>) -> Event {
    Event::ReportsAnswered {
        sent: at(sent),
        answer,
    }
}

fn heartbeat_answered(sent: u64, status: SessionStatus) -> Event {
    Event::HeartbeatAnswered {
        sent: at(sent),
        session: session(1),
        answer: Answer::Reply(HeartbeatReply {
            status,
            ..HeartbeatReply::default()
        }),
    }
}

/// A link that was welcomed at second zero.
fn current(mode: HeartbeatMode) -> Core {
    let mut core = fresh(mode);
    core.step(Event::SessionOpened(session(1)), now(0));
    let effects = core.step(answered(0, reply(SessionStatus::Current)), now(0));
    assert!(matches!(
        effects[..],
        [Effect::Notify(Notification::Welcome(_))]
    ));
    core
}

fn sent_reports(effects: &[Effect]) -> Option<&AgentReports> {
    effects.iter().find_map(|effect| match effect {
        Effect::SendReports(reports) => Some(reports),
        _ => None,
    })
}

fn sent_heartbeat(effects: &[Effect]) -> Option<&Heartbeat> {
    effects.iter().find_map(|effect| match effect {
        Effect::SendHeartbeat(heartbeat) => Some(heartbeat),
        _ => None,
    })
}

#[test]
fn the_hello_goes_first_and_alone_and_reports_follow_together() {
    let mut core = fresh(HeartbeatMode::Automatic);
    core.step(Event::Reported(vec![goodbye("x")]), now(0));
    let effects = core.step(Event::SessionOpened(session(1)), now(0));
    assert!(effects.contains(&Effect::ReadQueue(1)));
    let hello = sent_reports(&effects).unwrap();
    assert!(matches!(hello.reports[..], [AgentReport::Hello { .. }]));
    assert_eq!(hello.clock, 1);
    let effects = core.step(Event::Reported(vec![goodbye("y")]), now(0));
    assert_eq!(effects, []);
    let effects = core.step(answered(0, reply(SessionStatus::Current)), now(0));
    let reports = sent_reports(&effects).unwrap();
    assert_eq!(reports.reports, [goodbye("x"), goodbye("y")]);
    assert_eq!(reports.clock, 2);
}

#[test]
fn reports_are_repeated_in_order_until_they_are_stored() {
    let mut core = current(HeartbeatMode::Forwarded);
    let first = core.step(Event::Reported(vec![goodbye("x")]), now(1));
    assert_eq!(sent_reports(&first).unwrap().reports, [goodbye("x")]);
    let effects = core.step(answered(1, Answer::None), now(1));
    assert_eq!(sent_reports(&effects), None, "not at once");
    core.step(Event::Reported(vec![goodbye("y")]), now(1));
    let again = core.step(Event::Woken, now(2));
    let again = sent_reports(&again).unwrap();
    assert_eq!(again.reports, [goodbye("x"), goodbye("y")]);
    assert!(again.clock > sent_reports(&first).unwrap().clock);
    let effects = core.step(answered(2, reply(SessionStatus::Current)), now(2));
    let stored = Notification::Stored(vec![goodbye("x"), goodbye("y")]);
    assert!(effects.contains(&Effect::Notify(stored)));
}

#[test]
fn a_forgotten_session_sends_hello_again_with_the_present_jobs() {
    let mut core = current(HeartbeatMode::Automatic);
    let job = ActiveJob {
        job_id: JobId::parse("j").unwrap(),
        attempt: Some(Attempt(1)),
        status: JobStatus::Running,
    };
    core.step(Event::JobsChanged(vec![job.clone()]), now(1));
    core.step(Event::Reported(vec![goodbye("x")]), now(1));
    let effects = core.step(answered(1, reply(SessionStatus::HelloRequired)), now(1));
    assert_eq!(effects, [Effect::OpenSession]);
    let effects = core.step(Event::SessionOpened(session(2)), now(1));
    let hello = sent_reports(&effects).unwrap();
    assert_eq!((hello.session, hello.clock), (session(2), 1));
    match &hello.reports[..] {
        [AgentReport::Hello { hello }] => assert_eq!(hello.active_jobs, [job]),
        other => panic!("not a hello: {other:?}"),
    }
    let effects = core.step(answered(1, reply(SessionStatus::Current)), now(1));
    assert_eq!(sent_reports(&effects).unwrap().reports, [goodbye("x")]);
}

#[test]
fn an_owner_that_never_knows_the_session_is_not_asked_in_a_tight_loop() {
    let mut core = fresh(HeartbeatMode::Automatic);
    core.step(Event::SessionOpened(session(1)), now(0));
    for number in 2..20 {
        let effects = core.step(answered(0, reply(SessionStatus::HelloRequired)), now(0));
        assert_eq!(effects, [Effect::OpenSession]);
        let effects = core.step(Event::SessionOpened(session(number)), now(0));
        assert_eq!(sent_reports(&effects), None);
        assert!(sent_reports(&core.step(Event::Woken, now(2))).is_some());
    }
}

#[test]
fn silence_fences_unless_the_pool_has_no_leader() {
    let mut core = current(HeartbeatMode::Automatic);
    let effects = core.step(Event::Woken, now(INTERVAL));
    assert_eq!(sent_heartbeat(&effects).unwrap().jobs, Some(Vec::new()));
    let unanswered = |sent| Event::HeartbeatAnswered {
        sent: at(sent),
        session: session(1),
        answer: Answer::None,
    };
    let effects = core.step(unanswered(3), now(6));
    assert!(effects.contains(&Effect::ReadLease));
    let vacant = Event::LeaseRead {
        requested_at: at(6),
        leadership: Leadership::Vacant,
    };
    core.step(vacant, now(6));
    assert!(
        !core
            .step(Event::Woken, now(TIMEOUT + 6))
            .contains(&Effect::Notify(Notification::Fence))
    );
    let effects = core.step(Event::Woken, now(TIMEOUT + 7));
    assert_eq!(effects[0], Effect::Notify(Notification::Fence));
    assert_eq!(
        core.step(Event::Woken, now(TIMEOUT + 8)),
        [],
        "reported once"
    );
    let effects = core.step(
        heartbeat_answered(TIMEOUT + 7, SessionStatus::Current),
        now(TIMEOUT + 8),
    );
    assert_eq!(effects[0], Effect::Notify(Notification::Contact));
}

#[test]
fn a_held_lease_or_a_call_for_a_hello_is_no_contact() {
    let mut core = current(HeartbeatMode::Automatic);
    core.step(Event::Woken, now(3));
    let held = Event::LeaseRead {
        requested_at: at(9),
        leadership: Leadership::Held,
    };
    core.step(held, now(9));
    core.step(heartbeat_answered(3, SessionStatus::HelloRequired), now(9));
    let effects = core.step(Event::Woken, now(TIMEOUT + 1));
    assert!(effects.contains(&Effect::Notify(Notification::Fence)));
}

#[test]
fn after_a_suspend_the_first_step_fences_whatever_it_is_about() {
    let mut core = current(HeartbeatMode::Automatic);
    core.step(Event::Woken, now(3));
    let effects = core.step(heartbeat_answered(3, SessionStatus::Current), now(3600));
    assert_eq!(effects[0], Effect::Notify(Notification::Fence));
    assert!(
        !effects.contains(&Effect::Notify(Notification::Contact)),
        "the answer is an hour old"
    );
}

#[test]
fn an_agent_behind_a_gateway_is_never_fenced() {
    let mut core = current(HeartbeatMode::Forwarded);
    assert_eq!(core.step(Event::Woken, now(100)), []);
    let effects = core.step(Event::HeartbeatAsked(JsonObject::new()), now(100));
    assert_eq!(sent_heartbeat(&effects).unwrap().jobs, None);
    assert_eq!(core.wake_every(), None);
}

#[test]
fn a_newer_session_ends_the_link_and_its_own_name_does_not() {
    let mut core = current(HeartbeatMode::Automatic);
    assert_eq!(core.step(Event::ReplacedBy(session(1)), now(1)), []);
    let end = [Effect::Notify(Notification::Replaced), Effect::Leave];
    assert_eq!(core.step(Event::ReplacedBy(session(2)), now(1)), end);
    assert_eq!(core.step(Event::Reported(vec![goodbye("x")]), now(1)), []);
    let mut core = current(HeartbeatMode::Automatic);
    core.step(Event::Woken, now(3));
    assert_eq!(
        core.step(heartbeat_answered(3, SessionStatus::Replaced), now(3)),
        end
    );
}

#[test]
fn goodbye_is_the_last_word() {
    let mut core = current(HeartbeatMode::Automatic);
    core.step(Event::Reported(vec![goodbye("not yet")]), now(1));
    core.step(Event::GoodbyeAsked("done".to_owned(), 1), now(1));
    let effects = core.step(answered(1, reply(SessionStatus::Current)), now(1));
    assert_eq!(sent_reports(&effects).unwrap().reports, [goodbye("done")]);
    let effects = core.step(answered(1, reply(SessionStatus::Current)), now(1));
    assert_eq!(effects[1..], [Effect::Flushed(1), Effect::Leave]);
}

#[test]
fn confirmations_and_kills_are_passed_on() {
    let mut core = current(HeartbeatMode::Automatic);
    let job = |name: &str| JobAttempt {
        job_id: JobId::parse(name).unwrap(),
        attempt: Attempt(1),
    };
    core.step(Event::Reported(vec![goodbye("x")]), now(1));
    let answer = Answer::Reply(ReportsReply {
        start: vec![job("start")],
        kill: vec![job("kill")],
        ..ReportsReply::default()
    });
    let effects = core.step(answered(1, answer), now(1));
    assert!(effects.contains(&Effect::Notify(Notification::Confirmed(job("start")))));
    assert!(effects.contains(&Effect::Notify(Notification::Kill(job("kill")))));
}
