//! Layering, collected problems, masking, and the two renderings.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use std::path::Path;

use super::*;

const TABLE: &[Setting] = &[
    public("port", "PORT", Some("8080"), "Where to listen"),
    public(
        "heartbeat_interval_ms",
        "HEARTBEAT_INTERVAL_MS",
        Some("3000"),
        "How often",
    ),
    public(
        "job_retention",
        "JOB_RETENTION",
        Some("7days"),
        "How long | ended jobs stay",
    ),
    public("tags", "TAGS", None, "Tags"),
    public("nats_url", "NATS_URL", None, "Bus"),
    public("listen", "LISTEN", Some("127.0.0.1"), "Address"),
    public("strict", "STRICT", Some("false"), "Strictness"),
    Setting {
        key: "agent_token",
        env: "AGENT_TOKEN",
        default: Some("dev"),
        help: "Token",
        secret: Secrecy::Secret,
    },
];

const fn public(
    key: &'static str,
    env: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        env,
        default,
        help,
        secret: Secrecy::Public,
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings, Error> {
    let file = file(text);
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    let flags = flags
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Settings::load(
        TABLE,
        Some(file.path()),
        |name| env.get(name).map(|value| (*value).to_owned()),
        flags,
    )
}

#[test]
fn the_last_layer_that_speaks_wins() {
    let text = "port = 1001";
    type Layers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Layers<'_>, Layers<'_>, u16, &str); 5] = [
        ("", &[], &[], 8080, "default"),
        (text, &[], &[], 1001, "file"),
        (
            text,
            &[("PORT", "1002")],
            &[],
            1002,
            "environment variable PORT",
        ),
        (text, &[("PORT", "")], &[], 1001, "file"),
        (
            text,
            &[("PORT", "1002")],
            &[("port", "1003")],
            1003,
            "flag --port",
        ),
    ];
    for (text, env, flags, port, origin) in cases {
        let settings = load(text, env, flags).unwrap();
        let mut read = settings.reader();
        let read_port: u16 = read.parse("port");
        assert_eq!(read.finish(read_port).unwrap(), port);
        let shown = settings.origin("port").unwrap().to_string();
        assert!(
            shown.starts_with(origin),
            "{shown} should start with {origin}"
        );
    }
}

#[test]
fn every_type_reads_from_every_layer() {
    let text = "tags = [\"a\", \"b\"]\nstrict = true\njob_retention = \"90s\"";
    let env = [("NATS_URL", "nats://bus"), ("LISTEN", "0.0.0.0")];
    let settings = load(text, &env, &[("heartbeat-interval-ms", "250")]).unwrap();
    let mut read = settings.reader();
    assert_eq!(read.list("tags"), ["a", "b"]);
    assert!(read.boolean("strict"));
    assert_eq!(read.duration("job_retention"), Duration::from_secs(90));
    assert_eq!(read.optional("nats_url").as_deref(), Some("nats://bus"));
    assert_eq!(
        read.millis("heartbeat_interval_ms"),
        Duration::from_millis(250)
    );
    let listen = read.parse_or("listen", IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(listen, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    read.finish(()).unwrap();

    let settings = load("tags = \"1, 2\"", &[], &[]).unwrap();
    let mut read = settings.reader();
    assert_eq!(read.parse_list::<u8>("tags"), [1, 2]);
    assert_eq!(read.optional("nats_url"), None);
    read.finish(()).unwrap();
}

#[test]
fn all_problems_are_reported_together() {
    let text = "prot = 1\nheartbeat_interval_ms = \"soon\"\n[tags]\nx = 1";
    let env = [
        ("PORT", "70000"),
        ("STRICT", "perhaps"),
        ("AGENT_TOKEN", "hunter2"),
    ];
    let settings = load(text, &env, &[("verbose", "1")]).unwrap();
    let mut read = settings.reader();
    let port: u16 = read.parse("port");
    read.check("port", port != 0, "must not be 0");
    read.millis("heartbeat_interval_ms");
    read.list("tags");
    read.boolean("strict");
    read.text("nats_url");
    read.text("undeclared");
    let token = read.text("agent_token");
    read.check(
        "agent_token",
        token.len() > 8,
        "must be longer than 8 characters",
    );
    let shown = read.finish(()).unwrap_err().to_string();

    let expected = [
        "prot (file",
        "verbose (flag --verbose): there is no such setting",
        "port = \"70000\" (environment variable PORT): expected a whole number from 0 to 65535",
        "heartbeat_interval_ms = \"soon\" (file",
        "tags = \"a table\"",
        "strict = \"perhaps\" (environment variable STRICT): expected true or false",
        "nats_url: is not set; give it in the file, as NATS_URL in the environment or as --nats-url",
        "undeclared: the program reads this setting but does not declare it",
        "agent_token = \"***\" (environment variable AGENT_TOKEN): must be longer than 8 characters",
    ];
    for sentence in expected {
        assert!(shown.contains(sentence), "no {sentence:?} in {shown}");
    }
    assert!(
        shown.contains("9 problem(s)"),
        "one complaint per setting: {shown}"
    );
    assert!(!shown.contains("hunter2"), "secret shown: {shown}");
}

#[test]
fn a_malformed_file_is_named_without_quoting_its_lines() {
    let shown = load("agent_token = hunter2", &[], &[])
        .unwrap_err()
        .to_string();
    assert!(
        shown.contains("is not valid TOML") && shown.contains("line 1"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "secret shown: {shown}");

    let missing = Path::new("/nonexistent/quintet.toml");
    let error = Settings::load(TABLE, Some(missing), |_| None, BTreeMap::new()).unwrap_err();
    assert!(matches!(error, Error::ReadFile { .. }));
}

#[test]
fn the_printed_configuration_is_a_configuration_file_with_secrets_masked() {
    let env = [
        ("AGENT_TOKEN", "hunter2"),
        ("NATS_URL", "quote\" back\\ tab\t"),
    ];
    let settings = load("tags = [\"a\", \"1\"]", &env, &[("port", "9")]).unwrap();
    let printed = settings.print_config();
    assert!(
        printed.contains("# from: flag --port\nport = 9\n"),
        "{printed}"
    );
    assert!(printed.contains("agent_token = \"***\""), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");

    let again = load(&printed, &[], &[]).unwrap();
    let mut read = again.reader();
    assert_eq!(read.text("nats_url"), "quote\" back\\ tab\t");
    assert_eq!(read.list("tags"), ["a", "1"]);
    read.finish(()).unwrap();
}

#[test]
fn the_markdown_table_has_a_row_per_setting() {
    let table = markdown_table(TABLE);
    assert_eq!(table.lines().count(), TABLE.len() + 2);
    assert!(table.contains(
        "| `job_retention` | `JOB_RETENTION` | `--job-retention` | `7days` | How long \\| ended jobs stay |"
    ));
}

#[test]
fn a_command_reads_and_prints_its_own_settings_of_a_file_for_all() {
    let all = load("port = 9\ntags = [\"a\"]", &[], &[]).unwrap();
    let own: Vec<Setting> = TABLE
        .iter()
        .copied()
        .filter(|setting| setting.key != "port")
        .collect();
    let own = all.limited_to(&own);
    assert!(!own.print_config().contains("port"));
    let mut read = own.reader();
    assert_eq!(read.list("tags"), ["a"]);
    assert_eq!(read.text("port"), "");
    let error = read.finish(()).unwrap_err().to_string();
    assert!(error.contains("does not declare it"), "{error}");
}

#[test]
fn a_redacted_setting_is_shown_without_its_secret_part() {
    let host = |url: &str| url.rsplit('@').next().unwrap_or_default().to_owned();
    let table = [Setting {
        secret: Secrecy::Redacted(host),
        ..public("nats_url", "NATS_URL", None, "where NATS is")
    }];
    let flags = [("nats_url".to_owned(), "me:hunter2@bus".to_owned())];
    let settings = Settings::load(&table, None, |_| None, flags.into()).unwrap();
    let printed = settings.print_config();
    assert!(printed.contains("nats_url = \"bus\""), "{printed}");
    let mut read = settings.reader();
    assert_eq!(read.text("nats_url"), "me:hunter2@bus");
    read.check("nats_url", false, "cannot be used");
    let error = read.finish(()).unwrap_err().to_string();
    assert!(
        error.contains("\"bus\"") && !error.contains("hunter2"),
        "{error}"
    );
}
