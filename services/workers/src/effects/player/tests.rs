//! One effect under commands, beats and time, all of which the test decides.

use quintet_contract::frame::{Fps, Rbm, Thousandths};
use serde_json::json;

use super::*;

const CANVAS: Canvas = Canvas {
    width: 28,
    height: 14,
};

/// A player whose frames are drawn when the test decides.
struct PlayerHarness {
    player: Player,
    drawing: Option<Draw>,
    beats: Vec<(String, bool)>,
    frames: Vec<Vec<u8>>,
    errors: Vec<String>,
}

impl PlayerHarness {
    fn new(kind: Kind) -> Self {
        Self {
            player: Player::new(kind, "b".to_owned()),
            drawing: None,
            beats: Vec::new(),
            frames: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn awake(kind: Kind) -> Self {
        let mut harness = Self::new(kind);
        harness.hello(CANVAS);
        harness.receive(FrameWorkerMessage::Start);
        harness
    }

    fn step(&mut self, event: Event) {
        for act in self.player.step(event, Instant::now()) {
            match act {
                Effect::Publish(beat) => self.beats.push((beat.session, beat.running)),
                Effect::Draw(draw) => {
                    assert!(self.drawing.is_none(), "two frames at a time");
                    self.drawing = Some(draw);
                }
                Effect::Send(frame) => self.frames.push(frame),
                Effect::ReportError(error) => self.errors.push(error.to_string()),
            }
        }
    }

    fn receive(&mut self, message: FrameWorkerMessage) {
        self.step(Event::MessageReceived(message));
    }

    fn hello(&mut self, canvas: Canvas) {
        let fps = Fps::new(30.0).unwrap();
        self.receive(FrameWorkerMessage::Hello { fps, canvas });
    }

    fn config(&mut self, settings: serde_json::Value) {
        let data = settings.as_object().cloned().unwrap();
        self.receive(FrameWorkerMessage::Config { data });
    }

    fn tick(&mut self, seconds: f64) {
        let t = Thousandths::of(seconds).unwrap();
        self.receive(FrameWorkerMessage::Tick { t });
    }

    fn finish(&mut self) {
        let drawn = self.drawing.take().expect("something is drawn").run();
        self.step(Event::Drawn(drawn));
    }

    /// The image of a tick.
    fn frame(&mut self, seconds: f64) -> Bitmap {
        self.tick(seconds);
        self.finish();
        let canvas = self.player.canvas.unwrap();
        let frame = self.frames.last().unwrap();
        Rbm::read(frame, canvas).unwrap().bitmap(canvas)
    }

    fn beat_of_another(&mut self, session: &str, leaves: bool) {
        let text = json!({"session": session, "leaves": leaves});
        self.step(Event::HeartbeatReceived(
            serde_json::from_value(text).unwrap(),
        ));
    }

    async fn second(&mut self, fresh: &str) -> Option<(String, bool)> {
        tokio::time::advance(Duration::from_secs(1)).await;
        self.beats.clear();
        self.step(Event::SecondPassed(fresh.to_owned()));
        self.beats.pop()
    }
}

fn beat(session: &str, running: bool) -> Option<(String, bool)> {
    Some((session.to_owned(), running))
}

#[test]
fn it_sleeps_until_it_is_started_and_numbers_its_frames() {
    let mut harness = PlayerHarness::new(Kind::BouncingDot);
    harness.hello(CANVAS);
    harness.tick(0.0);
    assert!(harness.drawing.is_none());
    harness.receive(FrameWorkerMessage::Start);
    assert_eq!(harness.beats.pop(), beat("b", true));
    assert!(harness.frame(0.0).is_lit(0, 0));
    assert!(harness.frame(0.033).is_lit(1, 1));
    let seqs = harness.frames.iter().map(|frame| frame[11]);
    assert_eq!(seqs.collect::<Vec<_>>(), [0, 1]);
    harness.receive(FrameWorkerMessage::Stop);
    assert_eq!(harness.beats.pop(), beat("b", false));
    harness.tick(0.066);
    assert!(harness.drawing.is_none());
    harness.receive(FrameWorkerMessage::Start);
    assert!(harness.frame(0.0).is_lit(0, 0), "it starts again");
}

#[test]
fn of_the_ticks_that_come_while_it_draws_only_the_latest_counts() {
    let mut harness = PlayerHarness::awake(Kind::Text);
    for tick in 0..100 {
        harness.tick(f64::from(tick));
    }
    harness.finish();
    harness.finish();
    assert!(harness.drawing.is_none());
    let mut other = PlayerHarness::awake(Kind::Text);
    other.frame(0.0);
    other.frame(99.0);
    assert_eq!(harness.frames, other.frames);
}

#[test]
fn settings_apply_at_once_also_to_what_is_being_drawn_and_a_dot_goes_on() {
    let mut harness = PlayerHarness::awake(Kind::Text);
    harness.config(json!({"text": "|", "pps": 1}));
    let slow = harness.frame(1.0);
    harness.tick(1.0);
    harness.config(json!({"text": "|", "pps": 2}));
    harness.finish();
    assert_ne!(harness.frame(1.0), slow);
    let mut harness = PlayerHarness::awake(Kind::BouncingDot);
    harness.frame(0.0);
    harness.config(json!({"flip_h": true}));
    assert!(harness.frame(0.0).is_lit(26, 1));
    harness.tick(0.0);
    harness.config(json!({}));
    harness.finish();
    assert!(harness.frame(0.0).is_lit(3, 3));
}

#[test]
fn wrong_settings_are_complained_of_once_and_the_last_good_ones_hold() {
    let mut harness = PlayerHarness::awake(Kind::SimplexNoise);
    harness.config(json!({"threshold": -1}));
    for wrong in [
        json!({"threshold": "a"}),
        json!({"threshold": "a", "seed": 1}),
    ] {
        harness.config(wrong);
    }
    harness.config(json!({"threshold": 255, "invert": 1}));
    assert_eq!(
        harness.errors,
        ["threshold must be a number", "invert must be true or false"]
    );
    let mut lit = Bitmap::dark(CANVAS);
    lit.invert();
    assert_eq!(harness.frame(0.0), lit);
}

#[test]
fn another_canvas_is_drawn_on_at_once_and_frames_of_the_old_one_are_not_sent() {
    let mut harness = PlayerHarness::awake(Kind::BouncingDot);
    harness.frame(0.0);
    harness.tick(0.0);
    let canvas = Canvas {
        width: 5,
        height: 4,
    };
    harness.hello(canvas);
    harness.tick(0.0);
    harness.finish();
    assert_eq!(harness.frames.len(), 1, "the old one's");
    harness.finish();
    let frame = harness.frames.last().unwrap();
    assert!(
        Rbm::read(frame, canvas)
            .unwrap()
            .bitmap(canvas)
            .is_lit(0, 0)
    );
    harness.hello(Canvas {
        width: 0,
        height: 0,
    });
    harness.frame(0.0);
}

#[tokio::test(start_paused = true)]
async fn the_program_of_the_greater_session_draws_until_it_is_gone() {
    let mut harness = PlayerHarness::awake(Kind::BouncingDot);
    harness.tick(0.0);
    harness.beat_of_another("a", false);
    harness.beat_of_another("b", false);
    assert_eq!(harness.second("n").await, beat("b", true), "not greater");
    harness.beat_of_another("c", false);
    harness.finish();
    harness.receive(FrameWorkerMessage::Start);
    harness.tick(0.0);
    assert!(harness.frames.is_empty() && harness.drawing.is_none());
    assert_eq!(harness.second("n").await, None);
    assert_eq!(harness.second("n").await, None);
    assert!(harness.player.goodbye().is_none());
    assert_eq!(harness.second("d").await, beat("d", false), "back");
    harness.beat_of_another("e", false);
    harness.beat_of_another("e", true);
    assert_eq!(harness.second("f").await, beat("f", false), "it left");
    harness.receive(FrameWorkerMessage::Start);
    assert!(harness.frame(0.0).is_lit(0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_may_have_missed_messages_begins_a_new_session() {
    let mut harness = PlayerHarness::new(Kind::Text);
    harness.receive(FrameWorkerMessage::Start);
    assert_eq!(harness.second("c").await, beat("c", true), "no hello came");
    harness.hello(CANVAS);
    assert_eq!(harness.second("d").await, beat("c", true));
    harness.step(Event::Reconnected("e".to_owned()));
    assert_eq!(harness.beats.pop(), beat("e", true));
    assert_eq!(harness.second("f").await, beat("e", true));
}
