//! Whatever happens, in whatever order: what holds is what is stored, and everybody is answered once.

use proptest::prelude::*;

use super::*;

/// Something that may happen.
#[derive(Clone, Debug)]
enum Happening {
    Frame(usize, u16),
    Nonsense(usize),
    Straight(u16),
    Beat(usize, u8, bool),
    Wish(Wish),
    /// The write on its way succeeds, or does not.
    Stored(bool),
    Ended(usize),
    Pass(u64),
    /// Another service goes on with what is stored.
    Restart,
}

const NAMES: [&str; 3] = ["a", "b", "clock"];

fn happening() -> impl Strategy<Value = Happening> {
    let worker = 0..NAMES.len();
    let wish = prop_oneof![
        proptest::option::of(worker.clone())
            .prop_map(|who| Wish::Activate(who.map(|who| id(NAMES[who])))),
        worker.clone().prop_map(|who| Wish::Start(id(NAMES[who]))),
        worker.clone().prop_map(|who| Wish::Stop(id(NAMES[who]))),
        (worker.clone(), 0..3_u8).prop_map(|(who, value)| {
            let settings = json!({ "value": value }).as_object().unwrap().clone();
            Wish::Configure(id(NAMES[who]), settings)
        }),
        proptest::option::of(0..80_000_i64).prop_map(|rate| Wish::SetRate(rate.map(Thousandths))),
    ];
    prop_oneof![
        8 => (worker.clone(), 0..6_u16).prop_map(|(who, column)| Happening::Frame(who, column)),
        1 => worker.clone().prop_map(Happening::Nonsense),
        2 => (0..28_u16).prop_map(Happening::Straight),
        3 => (worker.clone(), 0..3_u8, any::<bool>()).prop_map(|(who, session, running)| Happening::Beat(who, session, running)),
        4 => wish.prop_map(Happening::Wish),
        4 => any::<bool>().prop_map(Happening::Stored),
        1 => worker.prop_map(Happening::Ended),
        6 => (0..3_000_u64).prop_map(Happening::Pass),
        1 => Just(Happening::Restart),
    ]
}

/// What has to hold whatever happens.
struct Watch {
    bench: Bench,
    /// The write on its way.
    writing: Option<Change>,
    asked: BTreeSet<u64>,
}

impl Watch {
    fn happen(&mut self, happening: Happening) {
        let bench = &mut self.bench;
        match happening {
            Happening::Frame(who, column) => bench.frame(NAMES[who], column),
            Happening::Nonsense(who) => {
                bench.step(Event::Framed(id(NAMES[who]), b"RB".to_vec().into(), None));
            }
            Happening::Straight(column) => {
                let mut bitmap = Bitmap::dark(bench.core.canvas());
                bitmap.set(column, 1, true);
                bench.step(Event::Ingested(bitmap.to_rbm(0, 0).into(), None));
            }
            Happening::Beat(who, session, running) => {
                bench.step(Event::Heard(
                    id(NAMES[who]),
                    beat(&session.to_string(), running),
                ));
            }
            Happening::Wish(wish) => {
                let request = RequestId::new(bench.next);
                bench.next += 1;
                self.asked.insert(request.number());
                bench.step(Event::Wished(request, wish));
            }
            Happening::Stored(is_stored) => match self.writing.take() {
                None => {}
                Some(change) if is_stored => {
                    match change {
                        Change::State(state) => bench.bucket.state = state,
                        Change::Settings(worker, set) => {
                            bench.bucket.settings.insert(worker, set.settings);
                        }
                    }
                    bench.step(Event::Stored(Ok(())));
                }
                Some(_) => bench.step(Event::Stored(Err(ErrorReply::unavailable("lost")))),
            },
            Happening::Ended(who) => bench.step(Event::Ended(id(NAMES[who]))),
            Happening::Pass(time) => bench.pass(ms(time)),
            Happening::Restart => {
                let terms = terms(|_| {}, &["clock"]);
                *bench = Bench {
                    next: bench.next,
                    seq: bench.seq,
                    ..Bench::new(terms, bench.bucket.clone())
                };
                self.writing = None;
                self.asked.clear();
            }
        }
        self.check();
    }

    fn check(&mut self) {
        for effect in self.bench.took() {
            match effect {
                Effect::Store(change) => {
                    assert!(
                        self.writing.replace(change).is_none(),
                        "one write at a time"
                    );
                }
                Effect::Answer(reply) => {
                    assert!(self.asked.remove(&reply.to()), "everybody is answered once");
                }
                Effect::Tell(_, FrameWorkerMessage::Tick { t }) => assert!(t.get() >= 0.0),
                _ => {}
            }
        }
        assert!(
            self.asked.is_empty() || self.writing.is_some(),
            "nobody waits for nothing"
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
        assert!(core.due() <= self.bench.now + TELL_EVERY);
    }
}

proptest! {
    #[test]
    fn whatever_happens_what_holds_is_stored_and_everybody_is_answered_once(
        happenings in proptest::collection::vec(happening(), 1..120),
    ) {
        let mut watch = Watch { bench: Bench::usual(), writing: None, asked: BTreeSet::new() };
        watch.check();
        for happening in happenings {
            watch.happen(happening);
        }
    }
}
