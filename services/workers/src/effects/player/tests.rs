//! One effect under commands, beats and time, all of which the test decides.

use quintet_contract::frame::{Fps, Rbm, Thousandths};
use serde_json::json;

use super::*;

const CANVAS: Canvas = Canvas {
    width: 28,
    height: 14,
};

/// A player whose frames are drawn when the test decides.
struct Theatre {
    player: Player,
    drawing: Option<Draw>,
    beats: Vec<(String, bool)>,
    frames: Vec<Vec<u8>>,
    errors: Vec<String>,
}

impl Theatre {
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
        let mut theatre = Self::new(kind);
        theatre.hello(CANVAS);
        theatre.receive(FrameWorkerMessage::Start);
        theatre
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

    /// The picture of a tick.
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
    let mut theatre = Theatre::new(Kind::BouncingDot);
    theatre.hello(CANVAS);
    theatre.tick(0.0);
    assert!(theatre.drawing.is_none());
    theatre.receive(FrameWorkerMessage::Start);
    assert_eq!(theatre.beats.pop(), beat("b", true));
    assert!(theatre.frame(0.0).is_lit(0, 0));
    assert!(theatre.frame(0.033).is_lit(1, 1));
    let seqs = theatre.frames.iter().map(|frame| frame[11]);
    assert_eq!(seqs.collect::<Vec<_>>(), [0, 1]);
    theatre.receive(FrameWorkerMessage::Stop);
    assert_eq!(theatre.beats.pop(), beat("b", false));
    theatre.tick(0.066);
    assert!(theatre.drawing.is_none());
    theatre.receive(FrameWorkerMessage::Start);
    assert!(theatre.frame(0.0).is_lit(0, 0), "it starts again");
}

#[test]
fn of_the_ticks_that_come_while_it_draws_only_the_latest_counts() {
    let mut theatre = Theatre::awake(Kind::Text);
    for tick in 0..100 {
        theatre.tick(f64::from(tick));
    }
    theatre.finish();
    theatre.finish();
    assert!(theatre.drawing.is_none());
    let mut other = Theatre::awake(Kind::Text);
    other.frame(0.0);
    other.frame(99.0);
    assert_eq!(theatre.frames, other.frames);
}

#[test]
fn settings_apply_at_once_also_to_what_is_being_drawn_and_a_dot_goes_on() {
    let mut theatre = Theatre::awake(Kind::Text);
    theatre.config(json!({"text": "|", "pps": 1}));
    let slow = theatre.frame(1.0);
    theatre.tick(1.0);
    theatre.config(json!({"text": "|", "pps": 2}));
    theatre.finish();
    assert_ne!(theatre.frame(1.0), slow);
    let mut theatre = Theatre::awake(Kind::BouncingDot);
    theatre.frame(0.0);
    theatre.config(json!({"flip_h": true}));
    assert!(theatre.frame(0.0).is_lit(26, 1));
    theatre.tick(0.0);
    theatre.config(json!({}));
    theatre.finish();
    assert!(theatre.frame(0.0).is_lit(3, 3));
}

#[test]
fn wrong_settings_are_complained_of_once_and_the_last_good_ones_hold() {
    let mut theatre = Theatre::awake(Kind::SimplexNoise);
    theatre.config(json!({"threshold": -1}));
    for wrong in [
        json!({"threshold": "a"}),
        json!({"threshold": "a", "seed": 1}),
    ] {
        theatre.config(wrong);
    }
    theatre.config(json!({"threshold": 255, "invert": 1}));
    assert_eq!(
        theatre.errors,
        ["threshold must be a number", "invert must be true or false"]
    );
    let mut lit = Bitmap::dark(CANVAS);
    lit.invert();
    assert_eq!(theatre.frame(0.0), lit);
}

#[test]
fn another_canvas_is_drawn_on_at_once_and_frames_of_the_old_one_are_not_sent() {
    let mut theatre = Theatre::awake(Kind::BouncingDot);
    theatre.frame(0.0);
    theatre.tick(0.0);
    let canvas = Canvas {
        width: 5,
        height: 4,
    };
    theatre.hello(canvas);
    theatre.tick(0.0);
    theatre.finish();
    assert_eq!(theatre.frames.len(), 1, "the old one's");
    theatre.finish();
    let frame = theatre.frames.last().unwrap();
    assert!(
        Rbm::read(frame, canvas)
            .unwrap()
            .bitmap(canvas)
            .is_lit(0, 0)
    );
    theatre.hello(Canvas {
        width: 0,
        height: 0,
    });
    theatre.frame(0.0);
}

#[tokio::test(start_paused = true)]
async fn the_program_of_the_greater_session_draws_until_it_is_gone() {
    let mut theatre = Theatre::awake(Kind::BouncingDot);
    theatre.tick(0.0);
    theatre.beat_of_another("a", false);
    theatre.beat_of_another("b", false);
    assert_eq!(theatre.second("n").await, beat("b", true), "not greater");
    theatre.beat_of_another("c", false);
    theatre.finish();
    theatre.receive(FrameWorkerMessage::Start);
    theatre.tick(0.0);
    assert!(theatre.frames.is_empty() && theatre.drawing.is_none());
    assert_eq!(theatre.second("n").await, None);
    assert_eq!(theatre.second("n").await, None);
    assert!(theatre.player.goodbye().is_none());
    assert_eq!(theatre.second("d").await, beat("d", false), "back");
    theatre.beat_of_another("e", false);
    theatre.beat_of_another("e", true);
    assert_eq!(theatre.second("f").await, beat("f", false), "it left");
    theatre.receive(FrameWorkerMessage::Start);
    assert!(theatre.frame(0.0).is_lit(0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_may_have_missed_messages_begins_a_new_session() {
    let mut theatre = Theatre::new(Kind::Text);
    theatre.receive(FrameWorkerMessage::Start);
    assert_eq!(theatre.second("c").await, beat("c", true), "no hello came");
    theatre.hello(CANVAS);
    assert_eq!(theatre.second("d").await, beat("c", true));
    theatre.step(Event::Reconnected("e".to_owned()));
    assert_eq!(theatre.beats.pop(), beat("e", true));
    assert_eq!(theatre.second("f").await, beat("e", true));
}
