//! Under any events in any order the state is what is stored, and every request is answered once.

use proptest::prelude::*;

use super::*;

/// Something that may apply.
#[derive(Clone, Debug)]
enum Arbitrary {
    Frame(usize, u16),
    Nonsense(usize),
    Straight(u16),
    Beat(usize, u8, bool),
    Command(Command),
    /// The write in flight succeeds, or does not.
    Stored(bool),
    Ended(usize),
    Pass(u64),
    /// Another service continues with what is stored.
    Restart,
}

const NAMES: [&str; 3] = ["a", "b", "clock"];

fn arbitrary() -> impl Strategy<Value = Arbitrary> {
    let worker = 0..NAMES.len();
    let command = prop_oneof![
        proptest::option::of(worker.clone())
            .prop_map(|who| Command::Activate(who.map(|who| id(NAMES[who])))),
        worker
            .clone()
            .prop_map(|who| Command::Start(id(NAMES[who]))),
        worker.clone().prop_map(|who| Command::Stop(id(NAMES[who]))),
        (worker.clone(), 0..3_u8).prop_map(|(who, value)| {
            let settings = json!({ "value": value }).as_object().unwrap().clone();
            Command::Configure(id(NAMES[who]), settings)
        }),
        proptest::option::of(0..80_000_i64)
            .prop_map(|rate| Command::SetRate(rate.map(Thousandths))),
    ];
    prop_oneof![
        8 => (worker.clone(), 0..6_u16).prop_map(|(who, column)| Arbitrary::Frame(who, column)),
        1 => worker.clone().prop_map(Arbitrary::Nonsense),
        2 => (0..28_u16).prop_map(Arbitrary::Straight),
        3 => (worker.clone(), 0..3_u8, any::<bool>()).prop_map(|(who, session, running)| Arbitrary::Beat(who, session, running)),
        4 => command.prop_map(Arbitrary::Command),
        4 => any::<bool>().prop_map(Arbitrary::Stored),
        1 => worker.prop_map(Arbitrary::Ended),
        6 => (0..3_000_u64).prop_map(Arbitrary::Pass),
        1 => Just(Arbitrary::Restart),
    ]
}

/// What has to hold whatever happens.
struct Watch {
    bench: Bench,
    /// The write in flight.
    writing: Option<Write>,
    pending: BTreeSet<u64>,
}

impl Watch {
    fn apply(&mut self, arbitrary: Arbitrary) {
        let bench = &mut self.bench;
        match arbitrary {
            Arbitrary::Frame(who, column) => bench.frame(NAMES[who], column),
            Arbitrary::Nonsense(who) => {
                bench.step(Event::FrameReceived(
                    id(NAMES[who]),
                    b"RB".to_vec().into(),
                    None,
                ));
            }
            Arbitrary::Straight(column) => {
                let mut bitmap = Bitmap::dark(bench.core.canvas());
                bitmap.set(column, 1, true);
                bench.step(Event::Ingested(bitmap.to_rbm(0, 0).into(), None));
            }
            Arbitrary::Beat(who, session, running) => {
                bench.step(Event::HeartbeatReceived(
                    id(NAMES[who]),
                    beat(&session.to_string(), running),
                ));
            }
            Arbitrary::Command(command) => {
                let request = RequestId::new(bench.next);
                bench.next += 1;
                self.pending.insert(request.number());
                bench.step(Event::CommandReceived(request, command));
            }
            Arbitrary::Stored(is_stored) => match self.writing.take() {
                None => {}
                Some(change) if is_stored => {
                    match change {
                        Write::State(state) => bench.bucket.state = state,
                        Write::Settings(worker, set) => {
                            bench.bucket.settings.insert(worker, set.settings);
                        }
                    }
                    bench.step(Event::Stored(Ok(())));
                }
                Some(_) => bench.step(Event::Stored(Err(ErrorReply::unavailable("lost")))),
            },
            Arbitrary::Ended(who) => bench.step(Event::ProcessEnded(id(NAMES[who]))),
            Arbitrary::Pass(time) => bench.pass(ms(time)),
            Arbitrary::Restart => {
                let config = config(|_| {}, &["clock"]);
                *bench = Bench {
                    next: bench.next,
                    seq: bench.seq,
                    ..Bench::new(config, bench.bucket.clone())
                };
                self.writing = None;
                self.pending.clear();
            }
        }
        self.check();
    }

    fn check(&mut self) {
        for write in std::mem::take(&mut self.bench.writes) {
            let is_first = self.writing.replace(write).is_none();
            assert!(is_first, "one write at a time");
        }
        for effect in self.bench.took() {
            match effect {
                Action::Answer(reply) => {
                    assert!(
                        self.pending.remove(&reply.to()),
                        "every request is answered once"
                    );
                }
                Action::Notify(_, FrameWorkerMessage::Tick { t }) => assert!(t.get() >= 0.0),
                _ => {}
            }
        }
        assert!(
            self.pending.is_empty() || self.writing.is_some(),
            "no requester waits without a pending write"
        );
        let core = &self.bench.core;
        assert_eq!(
            core.stored, self.bench.bucket,
            "what holds is what is stored"
        );
        assert_eq!(core.ingest.active(), core.stored.state.active.as_ref());
        assert_eq!(
            core.ticker.due().is_some(),
            core.stored.state.active.is_some()
        );
        let counts = core.ingest.counts();
        assert_eq!(counts.received, counts.forwarded + counts.dropped);
        assert!(core.next_due() <= Some(self.bench.now + STATS_INTERVAL));
    }
}

proptest! {
    #[test]
    fn under_any_events_the_state_is_stored_and_every_request_is_answered_once(
        events in proptest::collection::vec(arbitrary(), 1..120),
    ) {
        let mut watch = Watch { bench: Bench::usual(), writing: None, pending: BTreeSet::new() };
        watch.check();
        for arbitrary in events {
            watch.apply(arbitrary);
        }
    }
}
