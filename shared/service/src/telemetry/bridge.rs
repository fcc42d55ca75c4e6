//! From the `metrics` facade to OpenTelemetry instruments.
//!
//! Counters and gauges are atomics that the SDK reads when it exports, so recording costs the same as
//! without export, and a gauge that is moved up and down has one value however many places move it.
//! Only histograms reach the SDK at every sample. One instrument exists per name and set of labels.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::atomics::AtomicU64;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_util::registry::{Registry, Storage};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::prometheus::{SECONDS_BUCKETS, SECONDS_SUFFIX};

/// A recorder that feeds one meter.
pub(super) struct Bridge {
    registry: Registry<Key, Instruments>,
}

struct Instruments {
    meter: Meter,
    /// By metric name; metrics are described at the start and looked up once per instrument.
    descriptions: Mutex<HashMap<String, Description>>,
}

#[derive(Clone, Default)]
struct Description {
    text: String,
    unit: &'static str,
}

struct Samples {
    histogram: opentelemetry::metrics::Histogram<f64>,
    labels: Vec<KeyValue>,
}

impl Bridge {
    pub(super) fn new(meter: Meter) -> Self {
        let instruments = Instruments {
            meter,
            descriptions: Mutex::default(),
        };
        Self {
            registry: Registry::new(instruments),
        }
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
        let description = Description {
            text: text.to_string(),
            unit: unit.map_or("", |unit| unit.as_canonical_label()),
        };
        let mut descriptions = lock(&self.registry.storage().descriptions);
        descriptions.insert(name.as_str().to_owned(), description);
    }
}

impl Recorder for Bridge {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.registry
            .get_or_create_counter(key, |value| Counter::from_arc(Arc::clone(value)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.registry
            .get_or_create_gauge(key, |value| Gauge::from_arc(Arc::clone(value)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.registry
            .get_or_create_histogram(key, |samples| Histogram::from_arc(Arc::clone(samples)))
    }
}

impl Storage<Key> for Instruments {
    type Counter = Arc<AtomicU64>;
    type Gauge = Arc<AtomicU64>;
    type Histogram = Arc<Samples>;

    fn counter(&self, key: &Key) -> Self::Counter {
        let value = Arc::new(AtomicU64::new(0));
        let (read, labels, description) = (Arc::clone(&value), labels(key), self.description(key));
        // The SDK keeps the callback; the instrument itself is only a token.
        let _ = self
            .meter
            .u64_observable_counter(key.name().to_owned())
            .with_description(description.text)
            .with_unit(description.unit)
            .with_callback(move |observer| observer.observe(read.load(Ordering::Relaxed), &labels))
            .build();
        value
    }

    fn gauge(&self, key: &Key) -> Self::Gauge {
        let value = Arc::new(AtomicU64::new(0.0_f64.to_bits()));
        let (read, labels, description) = (Arc::clone(&value), labels(key), self.description(key));
        let _ = self
            .meter
            .f64_observable_gauge(key.name().to_owned())
            .with_description(description.text)
            .with_unit(description.unit)
            .with_callback(move |observer| {
                observer.observe(f64::from_bits(read.load(Ordering::Relaxed)), &labels);
            })
            .build();
        value
    }

    fn histogram(&self, key: &Key) -> Self::Histogram {
        let description = self.description(key);
        let mut builder = self
            .meter
            .f64_histogram(key.name().to_owned())
            .with_description(description.text)
            .with_unit(description.unit);
        if key.name().ends_with(SECONDS_SUFFIX) {
            builder = builder.with_boundaries(SECONDS_BUCKETS.to_vec());
        }
        Arc::new(Samples {
            histogram: builder.build(),
            labels: labels(key),
        })
    }
}

impl Instruments {
    fn description(&self, key: &Key) -> Description {
        lock(&self.descriptions)
            .get(key.name())
            .cloned()
            .unwrap_or_default()
    }
}

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.histogram.record(value, &self.labels);
    }
}

fn labels(key: &Key) -> Vec<KeyValue> {
    key.labels()
        .map(|label| KeyValue::new(label.key().to_owned(), label.value().to_owned()))
        .collect()
}

/// A panic while the map was held leaves it usable: it is only ever inserted into.
fn lock(
    descriptions: &Mutex<HashMap<String, Description>>,
) -> std::sync::MutexGuard<'_, HashMap<String, Description>> {
    descriptions.lock().unwrap_or_else(PoisonError::into_inner)
}
