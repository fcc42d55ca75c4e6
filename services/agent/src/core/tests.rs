use std::path::PathBuf;

use proptest::prelude::*;
use quintet_contract::id::{IdempotencyKey, JobId};
use quintet_contract::time::Timestamp;
use serde_json::json;

use super::*;

const GRACE: Duration = Duration::from_secs(10);

fn fresh(slots: u32) -> Core {
    let abilities = Abilities {
        allowed: crate::executors::Executor::ALL.into(),
        ffmpeg: true,
        work_dir: PathBuf::from("/work"),
    };
    Core::new(slots, abilities)
}

fn placement(name: &str, attempt: u32) -> JobAttempt {
    JobAttempt {
        job_id: JobId::parse(name).unwrap(),
        attempt: Attempt(attempt),
    }
}

fn offer_of(placement: &JobAttempt, config: Value, restartable: bool) -> Event {
    Event::Assigned(Box::new(Assignment {
        job_id: placement.job_id.clone(),
        attempt: placement.attempt,
        config: config.as_object().cloned().unwrap(),
        idempotency_key: IdempotencyKey::parse("k").unwrap(),
        expires_at: Timestamp::from_millis(0),
        restartable,
        requested_by: "test".to_owned(),
        stream_metadata: JsonObject::new(),
    }))
}

fn offer(placement: &JobAttempt) -> Event {
    offer_of(placement, json!({"command": ["true"]}), false)
}

/// A core in which this job runs.
fn running(restartable: bool) -> (Core, JobAttempt) {
    let mut core = fresh(1);
    let job = placement("j", 1);
    core.step(offer_of(&job, json!({"command": ["true"]}), restartable));
    core.step(Event::Confirmed(job.clone()));
    core.step(Event::Working(job.clone()));
    (core, job)
}

fn stop(job: &JobAttempt, answer: u64) -> Event {
    Event::CommandReceived {
        placement: job.clone(),
        request: Request::Stop { deadline: GRACE },
        answer: AnswerId(answer),
    }
}

/// What is reported of jobs, as short words.
fn reported(effects: &[Effect]) -> Vec<String> {
    let words = effects.iter().filter_map(|effect| match effect {
        Effect::Report(AgentReport::AssignAck {
            accepted, reason, ..
        }) => Some(match reason {
            Some(reason) => format!("refused: {reason}"),
            None => format!("accepted: {accepted}"),
        }),
        Effect::Report(AgentReport::JobUpdate { status, .. }) => Some(status.to_string()),
        Effect::Report(AgentReport::JobStopped { status, error, .. }) => Some(match error {
            Some(error) => format!("{status} {}", error.code),
            None => status.to_string(),
        }),
        Effect::Report(AgentReport::JobMuted { muted, success, .. }) => {
            Some(format!("muted: {muted} {success}"))
        }
        _ => None,
    });
    words.collect()
}

fn failed() -> Exit {
    Exit::Status {
        code: 3,
        tail: vec!["boom".to_owned()],
    }
}

#[test]
fn a_job_starts_only_after_its_acceptance_was_confirmed() {
    let mut core = fresh(1);
    let job = placement("j", 1);
    let effects = core.step(offer(&job));
    assert_eq!(reported(&effects), ["accepted: true"]);
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Start(..)))
    );
    let effects = core.step(Event::Confirmed(job.clone()));
    assert_eq!(reported(&effects), ["STARTING"]);
    assert!(matches!(&effects[1], Effect::Start(started, ..) if *started == job));
    assert_eq!(
        reported(&core.step(Event::Working(job.clone()))),
        ["RUNNING"]
    );
    let ended = core.step(Event::Exited(job.clone(), Exit::Success));
    assert_eq!(reported(&ended), ["STOPPED"]);
    assert_eq!(
        core.active_jobs().len(),
        1,
        "listed until its end is stored"
    );
    assert_eq!(core.used_slots(), 0);
    core.step(Event::FinalStored(job));
    assert_eq!(core.active_jobs(), []);
}

#[test]
fn what_cannot_be_taken_is_refused_with_a_reason() {
    let mut core = fresh(1);
    let bad = core.step(offer_of(
        &placement("bad", 1),
        json!({"command": []}),
        false,
    ));
    assert_eq!(reported(&bad), ["refused: command must not be empty"]);
    core.step(offer(&placement("j", 1)));
    let full = core.step(offer(&placement("k", 1)));
    assert_eq!(reported(&full), ["refused: this agent has no free slot"]);
    core.step(Event::DrainAsked { grace: GRACE });
    let late = core.step(offer(&placement("l", 1)));
    assert_eq!(reported(&late), ["refused: this agent is about to leave"]);
}

#[test]
fn a_confirmation_that_comes_too_late_starts_nothing() {
    let mut core = fresh(1);
    let job = placement("j", 1);
    let effects = core.step(offer(&job));
    let timeout = Duration::from_secs(10);
    assert!(effects.contains(&Effect::Schedule(
        job.clone(),
        Deadline::Confirmation,
        timeout
    )));
    let late = core.step(Event::DeadlinePassed(job.clone(), Deadline::Confirmation));
    assert_eq!(
        reported(&late),
        ["refused: the acceptance was not confirmed in time, so the job was not started"]
    );
    assert_eq!(core.step(Event::Confirmed(job.clone())), []);
    assert_eq!(core.active_jobs().len(), 1, "until that is stored");
    core.step(Event::FinalStored(job));
    assert_eq!(core.active_jobs(), []);
}

#[test]
fn a_stop_terminates_and_its_deadline_kills() {
    let (mut core, job) = running(false);
    let effects = core.step(stop(&job, 1));
    assert_eq!(reported(&effects), ["STOPPING"]);
    assert!(effects.contains(&Effect::Terminate(job.clone())));
    assert!(effects.contains(&Effect::Schedule(job.clone(), Deadline::Stop, GRACE)));
    let late = core.step(Event::DeadlinePassed(job.clone(), Deadline::Stop));
    assert!(late.contains(&Effect::Kill(job.clone())));
    let killed = Exit::Signal {
        signal: 9,
        tail: Vec::new(),
    };
    let ended = core.step(Event::Exited(job.clone(), killed));
    assert_eq!(
        reported(&ended),
        ["STOPPED"],
        "that it ended is what was asked"
    );
    assert_eq!(core.step(Event::DeadlinePassed(job, Deadline::Stop)), []);
}

#[test]
fn a_job_that_is_stopped_before_it_started_is_never_started() {
    let mut core = fresh(1);
    let job = placement("j", 1);
    core.step(offer(&job));
    assert_eq!(reported(&core.step(stop(&job, 1))), ["STOPPED"]);
    assert_eq!(core.step(Event::Confirmed(job)), []);
}

#[test]
fn an_unrequested_end_reports_its_reason() {
    for (exit, code) in [
        (failed(), "FAILED EXIT_STATUS"),
        (
            Exit::Signal {
                signal: 11,
                tail: Vec::new(),
            },
            "FAILED SIGNAL",
        ),
        (
            Exit::NotStarted {
                reason: "no".to_owned(),
            },
            "FAILED SPAWN_FAILED",
        ),
        (Exit::OnPurpose, "FAILED NOOP_FAILED"),
        (Exit::Success, "STOPPED"),
    ] {
        let (mut core, job) = running(false);
        assert_eq!(reported(&core.step(Event::Exited(job, exit))), [code]);
    }
    let (mut core, job) = running(false);
    let effects = core.step(Event::Exited(job, failed()));
    let [
        Effect::Report(AgentReport::JobStopped {
            error: Some(error), ..
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(error.message, "exited with status 3");
    assert_eq!(
        error.detail.as_ref().unwrap()["stderrTail"],
        json!(["boom"])
    );
}

#[test]
fn an_encoder_that_stalls_is_killed_and_fails() {
    let (mut core, job) = running(false);
    let effects = core.step(Event::Stalled(job.clone(), Duration::from_secs(15)));
    assert!(effects.contains(&Effect::Kill(job.clone())));
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::RecordEvent {
            kind: "stalled",
            ..
        }
    )));
    assert_eq!(
        reported(&core.step(Event::Exited(job, failed()))),
        ["FAILED STALLED"]
    );
}

#[test]
fn a_fence_kills_what_may_run_elsewhere_and_keeps_the_rest() {
    let mut core = fresh(3);
    let jobs = [
        placement("gone", 1),
        placement("kept", 1),
        placement("waiting", 1),
    ];
    core.step(offer_of(&jobs[0], json!({"command": ["a"]}), true));
    core.step(offer_of(&jobs[1], json!({"command": ["a"]}), false));
    core.step(offer_of(&jobs[2], json!({"command": ["a"]}), true));
    core.step(Event::Confirmed(jobs[0].clone()));
    core.step(Event::Confirmed(jobs[1].clone()));
    let effects = core.step(Event::Fenced);
    assert!(effects.contains(&Effect::Kill(jobs[0].clone())));
    assert!(!effects.contains(&Effect::Kill(jobs[1].clone())));
    let listed: Vec<JobId> = core
        .active_jobs()
        .into_iter()
        .map(|job| job.job_id)
        .collect();
    assert_eq!(listed, [jobs[1].job_id.clone()]);
    assert_eq!(
        core.used_slots(),
        2,
        "a slot is free when its process is gone"
    );
    assert_eq!(core.step(Event::Confirmed(jobs[2].clone())), []);
    assert_eq!(core.step(Event::Exited(jobs[0].clone(), failed())), []);
    assert_eq!(core.used_slots(), 1);
}

#[test]
fn a_newer_attempt_ends_the_older_one_in_silence() {
    let mut core = fresh(2);
    let (old, new) = (placement("j", 1), placement("j", 2));
    core.step(offer(&old));
    core.step(Event::Confirmed(old.clone()));
    let effects = core.step(offer(&new));
    assert!(effects.contains(&Effect::Kill(old.clone())));
    assert_eq!(reported(&effects), ["accepted: true"]);
    assert_eq!(core.step(Event::Exited(old, failed())), []);
    let (mut core, job) = running(false);
    let effects = core.step(Event::Revoked(job.clone()));
    assert_eq!(effects, [Effect::Kill(job)]);
}

#[test]
fn an_older_attempt_is_not_taken_beside_a_newer_one() {
    let mut core = fresh(2);
    core.step(offer(&placement("j", 2)));
    let effects = core.step(offer(&placement("j", 1)));
    assert_eq!(
        reported(&effects),
        ["refused: this agent has a newer attempt of the job"]
    );
}

#[test]
fn a_draining_agent_stops_its_jobs_and_leaves_when_they_are_gone() {
    for (restartable, end) in [(false, "STOPPED"), (true, "FAILED AGENT_SHUTDOWN")] {
        let (mut core, job) = running(restartable);
        let effects = core.step(Event::DrainAsked { grace: GRACE });
        assert_eq!(reported(&effects), ["STOPPING"]);
        let effects = core.step(Event::Exited(job, Exit::Success));
        assert_eq!(reported(&effects), [end]);
        assert_eq!(effects.last(), Some(&Effect::Leave(Leaving::Drained)));
    }
    let mut idle = fresh(1);
    let effects = idle.step(Event::DrainAsked { grace: GRACE });
    assert_eq!(effects, [Effect::Leave(Leaving::Drained)]);
}

#[test]
fn a_replaced_agent_kills_everything_without_a_word() {
    let (mut core, job) = running(false);
    assert_eq!(core.step(Event::Replaced), [Effect::Kill(job.clone())]);
    let effects = core.step(Event::Exited(job, failed()));
    assert_eq!(effects, [Effect::Leave(Leaving::Replaced)]);
}

#[test]
fn commands_are_answered_whatever_becomes_of_them() {
    let (mut core, job) = running(false);
    let control = |job: &JobAttempt, command: &str| Event::CommandReceived {
        placement: job.clone(),
        request: Request::Control {
            command: command.to_owned(),
            args: JsonObject::new(),
        },
        answer: AnswerId(7),
    };
    let effects = core.step(control(&job, "mute"));
    assert_eq!(reported(&effects), ["muted: true false"]);
    let Some(Effect::Answer(AnswerId(7), Ok(reply))) = effects.last() else {
        panic!("{effects:?}");
    };
    assert_eq!(reply.answer["success"], json!(false));
    let effects = core.step(control(&placement("other", 1), "mute"));
    assert!(
        matches!(&effects[..], [Effect::Answer(_, Err(error))] if error.code == ErrorCode::NotFound)
    );
    let noop = placement("n", 1);
    let mut core = fresh(1);
    core.step(offer_of(&noop, json!({"executor": "noop"}), false));
    core.step(Event::Confirmed(noop.clone()));
    let effects = core.step(control(&noop, "mute"));
    assert!(
        matches!(&effects[..], [Effect::Answer(_, Err(error))] if error.code == ErrorCode::CommandFailed)
    );
    core.step(Event::Working(noop.clone()));
    let effects = core.step(control(&noop, "dance"));
    assert!(
        matches!(&effects[..], [Effect::Answer(_, Err(error))] if error.code == ErrorCode::UnknownCommand)
    );
    assert!(matches!(
        core.step(control(&noop, "mute"))[..],
        [Effect::Control { .. }]
    ));
    let obeyed = Event::Controlled {
        placement: noop,
        command: "mute".to_owned(),
        answer: AnswerId(7),
        outcome: Ok(()),
    };
    assert_eq!(reported(&core.step(obeyed)), ["muted: true true"]);
}

fn any_event() -> impl Strategy<Value = Event> {
    let job =
        (0..3_u32, 1..3_u32).prop_map(|(name, attempt)| placement(&format!("j{name}"), attempt));
    (job, 0..14_u32, any::<bool>()).prop_map(|(job, kind, flag)| match kind {
        0..=2 => offer_of(&job, json!({"command": ["a"]}), flag),
        3 | 4 => Event::Confirmed(job),
        5 => Event::Working(job),
        6 => stop(&job, 1),
        7 => Event::CommandReceived {
            placement: job,
            request: Request::Kill,
            answer: AnswerId(2),
        },
        8 => Event::Exited(job, if flag { Exit::Success } else { failed() }),
        9 => Event::Stalled(job, GRACE),
        10 => Event::DeadlinePassed(
            job,
            if flag {
                Deadline::Stop
            } else {
                Deadline::Confirmation
            },
        ),
        11 => Event::FinalStored(job),
        12 if flag => Event::Fenced,
        12 => Event::Revoked(job),
        _ if flag => Event::DrainAsked { grace: GRACE },
        _ => Event::Welcome(AgentSettings::default()),
    })
}

proptest! {
    /// Answers aside: a command that is asked twice is answered twice.
    #[test]
    fn an_event_that_comes_twice_has_effects_once(events in proptest::collection::vec(any_event(), 0..60)) {
        let mut core = fresh(2);
        for event in events {
            core.step(event.clone());
            let mut again = core.step(event);
            again.retain(|effect| !matches!(effect, Effect::Answer(..)));
            prop_assert_eq!(again, []);
        }
    }

    /// No placement starts twice, ends twice, or starts after its end; slots are never exceeded.
    #[test]
    fn a_placement_starts_and_ends_at_most_once(events in proptest::collection::vec(any_event(), 0..200)) {
        let mut core = fresh(2);
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        for event in events {
            for effect in core.step(event) {
                match effect {
                    Effect::Start(job, ..) => {
                        prop_assert!(!started.contains(&job) && !ended.contains(&job));
                        started.push(job);
                    }
                    Effect::Report(AgentReport::JobStopped { job_id, attempt, .. }) => {
                        let job = JobAttempt { job_id, attempt: attempt.unwrap() };
                        prop_assert!(!ended.contains(&job));
                        ended.push(job);
                    }
                    _ => {}
                }
            }
            prop_assert!(core.used_slots() <= 2);
        }
    }
}
