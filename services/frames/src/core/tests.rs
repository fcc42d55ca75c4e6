//! The whole core, driven by hand: no clock, no bus.

mod arbitrary;

use quintet_contract::frame::{Bitmap, Thousandths};
use quintet_contract::reply::RequestId;
use quintet_leader::Core as _;
use serde_json::json;

use super::*;
use crate::config::{Display, FramesConfig};

/// A service under test, its time, and its effects since they were last taken.
struct Bench {
    core: Core,
    now: Duration,
    effects: Vec<Action>,
    /// Writes that were begun.
    writes: VecDeque<Write>,
    next: u64,
    seq: u32,
    /// What was stored, as the bucket would have it.
    bucket: Stored,
}

fn id(name: &str) -> WorkerId {
    WorkerId::parse(name).unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn config(edit: impl FnOnce(&mut Display), managed: &[&str]) -> CoreConfig {
    let mut display = Display {
        max_fps: Fps::new(60.0).unwrap(),
        ..Display::default()
    };
    edit(&mut display);
    CoreConfig {
        display: display.shown(),
        max_fps: display.max_fps,
        buffer: display.buffer,
        gap: display.frame_gap,
        managed: managed.iter().map(|name| id(name)).collect(),
        epoch: Timestamp::from_millis(0),
        shown: None,
    }
}

impl Bench {
    fn new(config: CoreConfig, stored: Stored) -> Self {
        let now = ms(1000);
        let (core, effects) = Core::restore(config, stored.clone(), now);
        let mut bench = Self {
            core,
            now,
            effects: Vec::new(),
            writes: VecDeque::new(),
            next: 0,
            seq: 0,
            bucket: stored,
        };
        bench.take(effects);
        bench.reconcile();
        bench
    }

    fn take(&mut self, effects: Effects) {
        assert!(
            effects.writes.is_empty() || effects.then.is_empty(),
            "nothing else waits for a write"
        );
        self.writes.extend(effects.writes);
        self.effects.extend(effects.then);
    }

    fn reconcile(&mut self) {
        loop {
            let effects = self.core.reconcile(self.now);
            if effects.is_empty() {
                return;
            }
            self.take(effects);
        }
    }

    fn usual() -> Self {
        Self::new(config(|_| {}, &["clock"]), Stored::default())
    }

    fn step(&mut self, event: Event) {
        let effects = self.core.step(event, self.now);
        self.take(effects);
        self.reconcile();
    }

    /// Lets time pass; everything that is due happens when it is.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.core.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.reconcile();
        }
        self.now = end;
        self.reconcile();
    }

    fn took(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.effects)
    }

    /// Wants something, lets it be stored, and returns the answer.
    fn command(&mut self, command: Command) -> Answer {
        let request = RequestId::new(self.next);
        self.next += 1;
        self.step(Event::CommandReceived(request, command));
        self.store_all();
        self.answer_to(request.number())
            .expect("every command is answered")
    }

    fn store_all(&mut self) {
        while let Some(change) = self.writes.pop_front() {
            match change {
                Write::State(state) => self.bucket.state = state,
                Write::Settings(worker, set) => {
                    self.bucket.settings.insert(worker, set.settings);
                }
            }
            self.step(Event::Stored(Ok(())));
        }
    }

    fn answer_to(&mut self, request: u64) -> Option<Answer> {
        let is_it =
            |effect: &Action| matches!(effect, Action::Answer(reply) if reply.to() == request);
        let place = self.effects.iter().position(is_it)?;
        match self.effects.remove(place) {
            Action::Answer(reply) => Some(reply.into_parts().1),
            _ => None,
        }
    }

    /// Sends a frame with this column lit.
    fn frame(&mut self, worker: &str, column: u16) {
        self.seq += 1;
        let mut bitmap = Bitmap::dark(self.core.canvas());
        bitmap.set(column, 0, true);
        let bytes = bitmap.to_rbm(self.seq, 0);
        self.step(Event::FrameReceived(id(worker), bytes.into(), None));
    }

    fn status(&mut self) -> FramesReply {
        self.step(Event::StatusRequested(RequestId::new(u64::MAX)));
        match self.answer_to(u64::MAX) {
            Some(Answer::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn activated(mut self, worker: &str) -> Self {
        self.frame(worker, 0);
        assert!(matches!(
            self.command(Command::Activate(Some(id(worker)))),
            Answer::Done(_)
        ));
        self.took();
        self
    }
}

fn error(answer: &Answer) -> &str {
    match answer {
        Answer::Refused(error) => &error.error,
        other => panic!("{other:?}"),
    }
}

fn messages_to<'e>(effects: &'e [Action], worker: &str) -> Vec<&'e FrameWorkerMessage> {
    let worker = id(worker);
    let of = effects.iter().filter_map(|effect| match effect {
        Action::Notify(to, message) if *to == worker => Some(message),
        _ => None,
    });
    of.collect()
}

fn shown(effects: &[Action]) -> usize {
    let is_shown = |effect: &&Action| matches!(effect, Action::Show(_));
    effects.iter().filter(is_shown).count()
}

fn beat(session: &str, running: bool) -> FrameWorkerHeartbeat {
    FrameWorkerHeartbeat {
        session: session.to_owned(),
        running,
        ..FrameWorkerHeartbeat::default()
    }
}

#[test]
fn an_unknown_worker_is_not_activated_and_nothing_changes_then() {
    let mut bench = Bench::usual().activated("first");
    assert_eq!(
        error(&bench.command(Command::Activate(Some(id("who"))))),
        "unknown worker id"
    );
    assert_eq!(
        error(&bench.command(Command::Start(id("who")))),
        "unknown worker id"
    );
    assert_eq!(
        error(&bench.command(Command::Stop(id("who")))),
        "unknown worker id"
    );
    assert_eq!(bench.status().stats.active, Some(id("first")));
    // An invalid frame makes no worker known; a frame does, and a heartbeat, and the configuration.
    bench.step(Event::FrameReceived(
        id("who"),
        b"RBx".to_vec().into(),
        None,
    ));
    assert_eq!(
        error(&bench.command(Command::Activate(Some(id("who"))))),
        "unknown worker id"
    );
    bench.frame("who", 1);
    bench.step(Event::HeartbeatReceived(id("there"), beat("1", true)));
    for known in ["who", "there", "clock"] {
        assert!(
            matches!(
                bench.command(Command::Activate(Some(id(known)))),
                Answer::Done(_)
            ),
            "{known}"
        );
        assert_eq!(bench.bucket.state.active, Some(id(known)));
    }
    assert!(matches!(
        bench.command(Command::Activate(None)),
        Answer::Done(_)
    ));
    assert_eq!(bench.status().stats.active, None);
}

#[test]
fn the_active_worker_alone_is_ticked_at_the_rate_that_holds() {
    let mut bench = Bench::usual().activated("dot");
    let start = bench.status().stats.counts;
    assert_eq!(
        (start.received, start.dropped),
        (1, 1),
        "its first frame came before it was active"
    );
    bench.pass(ms(1000));
    let effects = bench.took();
    let ticks = messages_to(&effects, "dot");
    assert!((29..=31).contains(&ticks.len()), "{}", ticks.len());
    assert!(matches!(ticks[0], FrameWorkerMessage::Tick { t } if t.get() < 0.04));
    bench.command(Command::SetRate(Thousandths::of(12.0)));
    bench.took();
    bench.pass(ms(1000));
    assert!((11..=13).contains(&messages_to(&bench.took(), "dot").len()));
    bench.frame("other", 3);
    bench.command(Command::Activate(Some(id("other"))));
    bench.took();
    bench.pass(ms(500));
    let effects = bench.took();
    assert!(messages_to(&effects, "dot").is_empty());
    assert!(messages_to(&effects, "other").len() >= 5);
}

#[test]
fn the_rate_has_bounds_and_goes_back_to_the_displays_own() {
    let mut bench = Bench::usual();
    for (rate, text) in [
        (0.999, "fps must be >= 1"),
        (-3.0, "fps must be >= 1"),
        (60.5, "fps exceeds max 60"),
    ] {
        let answer = bench.command(Command::SetRate(Thousandths::of(rate)));
        assert_eq!(error(&answer), text);
    }
    assert!(!bench.status().manual);
    bench.command(Command::SetRate(Thousandths::of(7.0)));
    let status = bench.status();
    assert!(status.manual);
    assert_eq!(status.stats.fps, Fps::new(7.0).unwrap());
    assert_eq!(status.display.fps_effective, Fps::new(7.0).unwrap());
    assert_eq!(status.display.fps_configured, Fps::new(30.0).unwrap());
    assert_eq!(status.display.buffer_capacity, 7);
    bench.command(Command::SetRate(None));
    let status = bench.status();
    assert_eq!(
        (
            status.manual,
            status.stats.fps.get(),
            status.display.buffer_capacity
        ),
        (false, 30.0, 30)
    );
}

#[test]
fn what_people_set_holds_after_a_restart() {
    let mut bench = Bench::usual().activated("dot");
    bench.command(Command::SetRate(Thousandths::of(10.0)));
    bench.command(Command::Configure(
        id("dot"),
        json!({"a": 1, "b": 2}).as_object().unwrap().clone(),
    ));
    bench.command(Command::Configure(
        id("dot"),
        json!({"b": 3}).as_object().unwrap().clone(),
    ));
    bench.command(Command::Start(id("clock")));
    let mut again = Bench::new(config(|_| {}, &["clock"]), bench.bucket.clone());
    let first = again.took();
    assert!(
        first
            .iter()
            .any(|effect| matches!(effect, Action::Run(worker) if *worker == id("clock")))
    );
    let status = again.status();
    assert_eq!(
        (status.stats.active, status.stats.fps.get(), status.manual),
        (Some(id("dot")), 10.0, true)
    );
    // The worker comes back, gets its settings, and is ticked.
    again.step(Event::HeartbeatReceived(id("dot"), beat("9", false)));
    let effects = again.took();
    let heartbeat = messages_to(&effects, "dot");
    let data = json!({"a": 1, "b": 3}).as_object().unwrap().clone();
    assert!(heartbeat.contains(&&FrameWorkerMessage::Config { data }));
    assert!(heartbeat.contains(&&FrameWorkerMessage::Start));
    again.pass(ms(1000));
    let ticked = again.took();
    assert!(
        (9..=11).contains(
            &messages_to(&ticked, "dot")
                .iter()
                .filter(|message| matches!(message, FrameWorkerMessage::Tick { .. }))
                .count()
        )
    );
    // A display that was replaced by a slower one is not driven faster than it can.
    let slow = config(|display| display.max_fps = Fps::new(5.0).unwrap(), &[]);
    assert_eq!(Bench::new(slow, bench.bucket).status().stats.fps.get(), 5.0);
}

#[test]
fn a_command_takes_effect_and_is_answered_once_it_is_stored_and_the_others_wait() {
    let mut bench = Bench::usual().activated("dot");
    bench.step(Event::CommandReceived(
        RequestId::new(50),
        Command::SetRate(Thousandths::of(5.0)),
    ));
    bench.step(Event::CommandReceived(
        RequestId::new(51),
        Command::SetRate(Thousandths::of(6.0)),
    ));
    assert_eq!(bench.writes.len(), 1);
    assert!(bench.answer_to(50).is_none());
    assert_eq!(bench.status().stats.fps.get(), 30.0);
    // Frames and ticks do not wait.
    bench.pass(ms(100));
    assert!(!messages_to(&bench.took(), "dot").is_empty());
    bench.writes.clear();
    bench.step(Event::Stored(Err(ErrorReply::unavailable("not now"))));
    assert_eq!(error(&bench.answer_to(50).unwrap()), "not now");
    assert_eq!(bench.writes.len(), 1);
    bench.store_all();
    assert!(matches!(bench.answer_to(51), Some(Answer::Done(_))));
    assert_eq!(bench.status().stats.fps.get(), 6.0);
}

#[test]
fn frames_of_the_active_worker_are_shown_each_for_its_time() {
    let mut bench = Bench::usual().activated("dot");
    for column in 0..5 {
        bench.frame("dot", column);
    }
    assert_eq!(shown(&bench.took()), 1, "the first at once");
    bench.pass(ms(134));
    assert_eq!(shown(&bench.took()), 4);
    let status = bench.status();
    assert_eq!(
        (status.display.frames_received, status.display.writer_ticks),
        (5, 5)
    );
    assert!(status.display.last_write_at.is_some());
    assert_eq!(status.display.interval_ms.unwrap().get().round(), 33.0);
    assert_eq!(
        (
            status.stats.counts.received,
            status.stats.counts.forwarded,
            status.stats.counts.dropped
        ),
        (6, 5, 1)
    );
    // The same image again is none that is shown, until its worker is activated again.
    bench.frame("dot", 4);
    bench.pass(ms(200));
    assert_eq!(shown(&bench.took()), 0);
    bench.command(Command::Activate(Some(id("dot"))));
    bench.frame("dot", 4);
    assert_eq!(shown(&bench.took()), 1);
}

#[test]
fn a_full_display_is_spared_and_every_watcher_is_notified() {
    // A buffer of one frame, which is shown for a second.
    let config = config(
        |display| {
            display.fps = Fps::new(2.0).unwrap();
            display.buffer = ms(100);
            display.frame_gap = ms(500);
        },
        &[],
    );
    let mut bench = Bench::new(config, Stored::default()).activated("dot");
    bench.pass(ms(1000));
    bench.took();
    // The first is shown, the second waits, and for the third there is a token, but no room.
    bench.frame("dot", 1);
    bench.frame("dot", 2);
    bench.pass(ms(500));
    bench.frame("dot", 3);
    bench.took();
    let status = bench.status();
    assert!(status.stats.degraded);
    assert_eq!(status.stats.counts.forwarded, 2);
    // No ticks until the display has room; its waiting is over after half a second.
    bench.pass(ms(480));
    assert!(messages_to(&bench.took(), "dot").is_empty());
    bench.pass(ms(600));
    let effects = bench.took();
    assert!(!messages_to(&effects, "dot").is_empty());
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Action::Publish(stats) if !stats.degraded))
    );
    bench.frame("dot", 3);
    assert_eq!(
        bench.status().stats.counts.forwarded,
        3,
        "what was refused may come again"
    );
}

#[test]
fn frames_sent_straight_to_the_display_need_no_worker_and_are_refused_when_it_is_full() {
    let mut bench = Bench::new(
        config(|display| display.buffer = ms(100), &[]),
        Stored::default(),
    );
    let mut ingest = |column: u16| {
        let mut bitmap = Bitmap::dark(bench.core.canvas());
        bitmap.set(column, 5, true);
        let bytes = bitmap.to_rbm(u32::MAX, 1000);
        bench.step(Event::Ingested(bytes.into(), Some(RequestId::new(7))));
        bench.answer_to(7).unwrap()
    };
    let Answer::Ingested(first) = ingest(0) else {
        panic!("there is room");
    };
    assert_eq!((first.size, first.capacity, first.seq), (1, 3, u32::MAX));
    for column in 1..4 {
        assert!(
            matches!(ingest(column), Answer::Ingested(_)),
            "one is shown, and three wait"
        );
    }
    let Answer::Refused(refusal) = ingest(4) else {
        panic!("there is no room");
    };
    assert_eq!(refusal.code, ErrorCode::RateLimited);
    assert_eq!(refusal.details[RETRY_AFTER_MS], 1000);
    bench.step(Event::Ingested(
        b"RB".to_vec().into(),
        Some(RequestId::new(8)),
    ));
    let answer = bench.answer_to(8).unwrap();
    assert_eq!(error(&answer), "short rbm header");
}

#[test]
fn workers_on_the_bus_are_started_and_stopped_until_they_confirm_it() {
    let mut bench = Bench::usual();
    bench.step(Event::HeartbeatReceived(id("text"), beat("1", false)));
    let effects = bench.took();
    assert!(matches!(
        messages_to(&effects, "text")[..],
        [
            FrameWorkerMessage::Hello { .. },
            FrameWorkerMessage::Config { .. }
        ]
    ));
    bench.command(Command::Start(id("text")));
    assert_eq!(
        messages_to(&bench.took(), "text"),
        [&FrameWorkerMessage::Start]
    );
    // It was lost.
    bench.pass(ms(1000));
    bench.took();
    bench.step(Event::HeartbeatReceived(id("text"), beat("1", false)));
    assert_eq!(
        messages_to(&bench.took(), "text"),
        [&FrameWorkerMessage::Start]
    );
    bench.step(Event::HeartbeatReceived(id("text"), beat("1", true)));
    assert!(messages_to(&bench.took(), "text").is_empty());
    assert_eq!(bench.status().stats.running, [id("text")]);
    // The worker that was shown is stopped, also when it was started by hand.
    bench.command(Command::Activate(Some(id("text"))));
    bench.command(Command::Activate(Some(id("clock"))));
    assert!(messages_to(&bench.took(), "text").contains(&&FrameWorkerMessage::Stop));
    bench.step(Event::HeartbeatReceived(id("text"), beat("1", true)));
    assert_eq!(
        messages_to(&bench.took(), "text"),
        [&FrameWorkerMessage::Stop]
    );
    bench.step(Event::HeartbeatReceived(id("text"), beat("1", false)));
    bench.pass(ms(4000));
    let status = bench.status();
    assert_eq!(status.stats.running, [id("clock")]);
    assert_eq!(
        status.known,
        [id("clock")],
        "the other one was silent for three seconds"
    );
}

#[test]
fn a_process_is_started_stopped_and_restarted_when_it_is_silent() {
    let mut bench = Bench::usual();
    let ran = |effects: &[Action]| {
        effects
            .iter()
            .filter(|effect| matches!(effect, Action::Run(_)))
            .count()
    };
    let halted = |effects: &[Action]| {
        effects
            .iter()
            .filter(|effect| matches!(effect, Action::Halt(_)))
            .count()
    };
    bench.command(Command::Activate(Some(id("clock"))));
    assert_eq!(ran(&bench.took()), 1);
    bench.step(Event::ProcessStarted(id("clock")));
    assert_eq!(bench.status().stats.running, [id("clock")]);
    bench.pass(ms(8000));
    bench.frame("clock", 1);
    bench.pass(ms(9500));
    assert_eq!(
        halted(&bench.took()),
        0,
        "it was silent for less than ten seconds"
    );
    bench.pass(ms(1500));
    assert_eq!(halted(&bench.took()), 1);
    bench.step(Event::ProcessEnded(id("clock")));
    assert_eq!(ran(&bench.took()), 1, "it is wanted");
    // One that dies by itself is started again within a second, but not at once.
    bench.step(Event::ProcessEnded(id("clock")));
    assert_eq!(ran(&bench.took()), 0);
    bench.pass(ms(1100));
    assert_eq!(ran(&bench.took()), 1);
    // Another one is shown.
    bench.frame("dot", 1);
    bench.command(Command::Activate(Some(id("dot"))));
    assert_eq!(halted(&bench.took()), 1);
    bench.step(Event::ProcessEnded(id("clock")));
    bench.pass(ms(30_000));
    assert_eq!(ran(&bench.took()), 0);
}

#[test]
fn stats_are_published_once_a_second_and_on_every_event_but_are_rate_limited() {
    let mut bench = Bench::usual().activated("dot");
    bench.pass(ms(2000));
    bench.took();
    let published = |effects: &[Action]| {
        effects
            .iter()
            .filter(|effect| matches!(effect, Action::Publish(_)))
            .count()
    };
    bench.pass(ms(3000));
    assert_eq!(published(&bench.took()), 3);
    bench.pass(ms(500));
    bench.took();
    bench.command(Command::SetRate(Thousandths::of(20.0)));
    assert_eq!(published(&bench.took()), 1, "at once");
    for _ in 0..1000 {
        bench.step(Event::FrameReceived(id("bad"), b"RB".to_vec().into(), None));
        bench.pass(ms(1));
    }
    let effects = bench.took();
    assert!(
        (15..=22).contains(&published(&effects)),
        "{}",
        published(&effects)
    );
    let status = bench.status();
    assert_eq!(status.stats.errors[&id("bad")], "short rbm header");
}

#[test]
fn a_loud_worker_takes_nothing_from_another() {
    let mut bench = Bench::usual().activated("dot");
    for column in 0..1000_u16 {
        bench.frame("loud", column % 28);
        if column % 50 == 0 {
            bench.frame("dot", column / 50 % 28);
        }
        bench.pass(ms(1));
    }
    let counts = bench.status().stats.counts;
    assert_eq!(counts.forwarded, 20);
}

#[test]
fn settings_that_grow_too_large_are_refused_and_the_old_ones_stay() {
    let mut bench = Bench::usual();
    let settings = |value: &str| json!({"text": value}).as_object().unwrap().clone();
    bench.command(Command::Configure(id("text"), settings("short")));
    let answer = bench.command(Command::Configure(
        id("text"),
        settings(&"x".repeat(600_000)),
    ));
    assert!(
        matches!(answer, Answer::Refused(refusal) if refusal.code == ErrorCode::PayloadTooLarge)
    );
    assert_eq!(bench.bucket.settings[&id("text")], settings("short"));
}

#[test]
fn images_are_what_was_shown_last_and_panels_as_they_are_mounted() {
    let mut bench = Bench::usual().activated("dot");
    let get_image = |bench: &mut Bench, panel: Option<&str>, unless: Option<&str>| {
        let get = GetPicture {
            panel: panel.map(str::to_owned),
            unless: unless.map(str::to_owned),
        };
        bench.step(Event::ImageRequested(RequestId::new(9), get));
        bench.answer_to(9).unwrap()
    };
    let image = |answer: Answer| match answer {
        Answer::Image(reply) => *reply,
        other => panic!("{other:?}"),
    };
    let dark = image(get_image(&mut bench, None, None));
    assert_eq!(
        dark.rbm.unwrap().0,
        Bitmap::dark(bench.core.canvas()).to_rbm(0, 0)
    );
    bench.frame("dot", 3);
    let lit = image(get_image(&mut bench, None, Some(&dark.digest)));
    assert!(lit.rbm.is_some() && lit.digest != dark.digest);
    assert_eq!(
        image(get_image(&mut bench, None, Some(&lit.digest))).rbm,
        None
    );
    let top = image(get_image(&mut bench, Some("top"), None))
        .rbm
        .unwrap()
        .0;
    assert_eq!(
        (
            Rbm::canvas_of(&top).unwrap().width,
            Rbm::canvas_of(&top).unwrap().height
        ),
        (28, 7)
    );
    assert!(error(&get_image(&mut bench, Some("left"), None)).contains("no panel left"));
}

#[test]
fn what_is_configured_is_what_the_defaults_say() {
    let config = FramesConfig::new(quintet_contract::id::HolderId::parse("x").unwrap());
    config.check().unwrap();
    let status = Bench::usual().status();
    assert_eq!(status.config, config.display.shown());
}
