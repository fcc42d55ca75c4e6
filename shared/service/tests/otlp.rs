//! Export to a collector that really listens: what arrives there, decoded.
//!
//! One test in a binary of its own, because telemetry is set up once per process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use quintet_service::settings::Settings;
use quintet_service::telemetry::{self, Telemetry, TelemetryConfig};
use quintet_service::trace;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const DEADLINE: Duration = Duration::from_secs(20);

/// A path and the body that was posted to it.
type Posted = (String, Vec<u8>);

#[tokio::test]
async fn traces_and_metrics_reach_the_collector() {
    let (address, posted) = collector();
    let telemetry = set_up(address);

    let span = tracing::info_span!("place_job", job = "j1");
    trace::set_parent(&span, |name| {
        (name == "traceparent").then(|| PARENT.to_owned())
    });
    let sent = span
        .in_scope(trace::current_traceparent)
        .expect("export implies propagation");
    drop(span);
    // Spans of the exporter's own client must not become part of what it exports.
    tracing::info_span!(target: "reqwest::connect", "connect").in_scope(|| ());
    metrics::counter!("quintet_placed_total").increment(1);
    metrics::counter!("quintet_placed_total").increment(2);
    metrics::gauge!("quintet_slots").set(5.0);
    metrics::gauge!("quintet_slots").decrement(1.0);
    metrics::histogram!("quintet_place_seconds").record(0.0004);
    telemetry.flush().await.expect("the collector answers");

    let traces = ExportTraceServiceRequest::decode(body(&posted, "/v1/traces").as_slice()).unwrap();
    let resource_spans = &traces.resource_spans[0];
    assert_eq!(
        service_name(resource_spans.resource.as_ref().unwrap()),
        "scheduler"
    );
    let spans: Vec<&Span> = resource_spans
        .scope_spans
        .iter()
        .flat_map(|scope| &scope.spans)
        .collect();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].name, "place_job");
    assert_eq!(hex(&spans[0].trace_id), PARENT[3..35]);
    assert_eq!(hex(&spans[0].parent_span_id), PARENT[36..52]);
    assert_eq!(
        hex(&spans[0].span_id),
        sent[36..52],
        "the context that was passed on is this span"
    );

    let metrics =
        ExportMetricsServiceRequest::decode(body(&posted, "/v1/metrics").as_slice()).unwrap();
    let metrics: Vec<&Metric> = metrics.resource_metrics[0]
        .scope_metrics
        .iter()
        .flat_map(|scope| &scope.metrics)
        .collect();
    assert_eq!(number(&metrics, "quintet_placed_total"), 3.0);
    assert_eq!(number(&metrics, "quintet_slots"), 4.0);
    let Some(Data::Histogram(histogram)) = &named(&metrics, "quintet_place_seconds").data else {
        panic!("not a histogram");
    };
    assert_eq!(
        histogram.data_points[0].bucket_counts[0], 1,
        "at most half a millisecond"
    );
    let rendered = telemetry.prometheus().render();
    assert!(
        rendered.contains("quintet_placed_total 3"),
        "Prometheus sees the same: {rendered}"
    );
    telemetry.shutdown().await.expect("the collector answers");
}

fn set_up(collector: SocketAddr) -> Telemetry {
    let env = move |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(format!("http://{collector}/")),
        "LOG_LEVEL" => Some("error".to_owned()),
        _ => None,
    };
    let settings = Settings::load(telemetry::SETTINGS, None, env, BTreeMap::new())
        .expect("there is no file to fail on");
    let mut read = settings.reader();
    let config = TelemetryConfig::read(&mut read, "scheduler");
    let config = read.finish(config).expect("the settings are valid");
    telemetry::init(config).expect("nothing else set up telemetry in this process")
}

fn collector() -> (SocketAddr, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || serve(stream, &sender));
        }
    });
    (address, receiver)
}

/// As much of HTTP as an exporter needs: one request per connection, with a length.
fn serve(stream: TcpStream, sender: &Sender<Posted>) -> Option<()> {
    let mut answer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let path = request.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // The test may have seen enough and gone.
    let _ = sender.send((path, body));
    answer
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .ok()
}

fn body(posted: &Receiver<Posted>, wanted: &str) -> Vec<u8> {
    loop {
        let (path, body) = posted
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|error| panic!("nothing posted to {wanted}: {error}"));
        if path == wanted {
            return body;
        }
        eprintln!("posted to {path}, waiting for {wanted}");
    }
}

fn service_name(resource: &Resource) -> String {
    let attribute = resource
        .attributes
        .iter()
        .find(|attribute| attribute.key == "service.name");
    let value = attribute.and_then(|attribute| attribute.value.clone()?.value);
    match value {
        Some(Value::StringValue(name)) => name,
        other => panic!("no service name but {other:?}"),
    }
}

fn named<'a>(metrics: &[&'a Metric], name: &str) -> &'a Metric {
    metrics
        .iter()
        .find(|metric| metric.name == name)
        .expect("the metric was exported")
}

fn number(metrics: &[&Metric], name: &str) -> f64 {
    let points = match &named(metrics, name).data {
        Some(Data::Sum(sum)) => &sum.data_points,
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        other => panic!("no number but {other:?}"),
    };
    match points[0].value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => panic!("a point without a value"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
