//! One process-wide setup shared by the tests of this crate, its metrics, and what cannot be configured.

use std::collections::BTreeMap;

use super::*;
use crate::settings::Settings;

fn config(env: &[(&str, &str)]) -> Result<TelemetryConfig, crate::settings::Error> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    let value = |name: &str| env.get(name).map(|value| (*value).to_owned());
    let settings = Settings::load(SETTINGS, None, value, BTreeMap::new())?;
    let mut read = settings.reader();
    let config = TelemetryConfig::read(&mut read, "edge");
    read.finish(config)
}

#[test]
fn a_second_setup_is_refused_and_tests_share_the_first() {
    let first = Telemetry::for_tests();
    let second = Telemetry::for_tests();
    let refused = init(config(&[]).unwrap());
    assert!(matches!(refused, Err(Error::AlreadySetUp)));

    metrics::counter!("quintet_test_shared").increment(2);
    assert!(
        first
            .prometheus()
            .render()
            .contains("quintet_test_shared 2")
    );
    assert!(
        second
            .prometheus()
            .render()
            .contains("quintet_test_shared 2")
    );
}

#[test]
fn histograms_of_seconds_have_buckets_from_half_a_millisecond_to_ten_seconds() {
    let telemetry = Telemetry::for_tests();
    metrics::histogram!("quintet_test_step_seconds").record(0.0004);
    metrics::histogram!("quintet_test_step_seconds").record(9.0);
    let text = telemetry.prometheus().render();
    for line in [
        "quintet_test_step_seconds_bucket{le=\"0.0005\"} 1",
        "quintet_test_step_seconds_bucket{le=\"5\"} 1",
        "quintet_test_step_seconds_bucket{le=\"10\"} 2",
        "quintet_test_step_seconds_count 2",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
}

#[test]
fn json_logs_are_one_object_per_line_with_the_fields_at_the_top() {
    // The layer as init builds it, with the writer replaced: stderr belongs to the test harness.
    let buffer: std::sync::Arc<Mutex<Vec<u8>>> = std::sync::Arc::default();
    let writer = std::sync::Arc::clone(&buffer);
    let layer = json_layer(move || Shared(std::sync::Arc::clone(&writer)));
    let subscriber = Registry::default().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        let _span = tracing::info_span!("step", job = "j1").entered();
        tracing::info!(agent = "a1", "job assigned");
    });
    let written = buffer.lock().unwrap().clone();
    let line: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(line["message"], "job assigned");
    assert_eq!(line["agent"], "a1");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["span"]["job"], "j1");
}

struct Shared(std::sync::Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn wrong_telemetry_settings_are_reported_together() {
    let env = [
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "edge=loud"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ];
    let shown = config(&env).unwrap_err().to_string();
    for part in [
        "log_format = \"xml\"",
        "variable RUST_LOG",
        "http://localhost:4318",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let config = config(&[("LOG_LEVEL", "debug"), ("QUINTET_TRACE_PROPAGATION", "1")]).unwrap();
    assert_eq!(config.log_filter, "debug,async_nats=warn");
    assert_eq!(config.propagation, Propagation::On);
}
