//! Encryption and credentials: TLS to NATS and on the edge with certificates made here, credentials files, and what
//! someone without them sees.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use quintet::system::{BusSettings, Part, SystemConfig};
use quintet_agent::AgentConfig;
use quintet_bus::{Bus, ConnectError, Credentials, Secret, TlsFiles};
use quintet_contract::id::{AgentId, HolderId};
use quintet_contract::permission;
use quintet_edge::{ApiKey, EdgeConfig, Role, Tls};
use quintet_scheduler::SchedulerConfig;
use quintet_testkit::Nats;
use quintet_testkit::nats::Backend;
use quintet_tests::{Api, TIMEOUT, binary, part};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair as TlsKey};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An authority with one certificate, for servers and clients on this machine.
struct Authority {
    folder: TempDir,
    ca: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, TlsKey::generate().unwrap()).unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = TlsKey::generate().unwrap();
        let cert = params.signed_by(&key, &ca).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        fs::write(folder.path().join("cert.pem"), cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self {
            ca: ca.pem(),
            folder,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a client of NATS needs.
    fn files(&self) -> TlsFiles {
        TlsFiles {
            ca: Some(self.file("ca.pem")),
            cert: Some(self.file("cert.pem")),
            key: Some(self.file("key.pem")),
        }
    }

    /// The section of a NATS that wants certificates of its clients as well.
    fn section(&self) -> String {
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
            self.file("cert.pem"),
            self.file("key.pem"),
            self.file("ca.pem")
        )
    }

    fn https(&self, address: SocketAddr) -> Api {
        let ca = reqwest::Certificate::from_pem(self.ca.as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]);
        Api::secure(address, client.build().unwrap())
    }
}

/// Files are read where the test runs, so the server runs there too.
async fn server(config: String) -> Nats {
    let options = Nats::options().backend(Backend::Binary).config(config);
    options.start().await.unwrap()
}

fn whole(config: &mut SystemConfig) {
    let edge = EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    let scheduler = SchedulerConfig::new(HolderId::parse("one").unwrap());
    config.parts.push(Part::Edge(edge));
    config.parts.push(Part::Scheduler(scheduler));
    let agent = AgentConfig::new(AgentId::parse("agent-1").unwrap());
    config.parts.push(Part::Agent(agent));
}

async fn runs_a_job(api: &Api) {
    let job = json!({"inlineConfig": {"command": ["true"]}});
    let job = api.submit(job).await;
    api.until(job["id"].as_str().unwrap(), "STOPPED").await;
}

#[tokio::test]
async fn everything_runs_over_tls_and_strangers_stay_outside() {
    let authority = Authority::new();
    let nats = server(authority.section()).await;
    let system = part(&nats, |config| {
        whole(config);
        config.bus.tls = Some(authority.files());
        for part in &mut config.parts {
            if let Part::Edge(edge) = part {
                let (cert, key) = (authority.file("cert.pem"), authority.file("key.pem"));
                edge.tls = Some(Tls { cert, key });
            }
        }
    })
    .await;
    system.ready(TIMEOUT).await.unwrap();
    let address = system.address().unwrap();
    runs_a_job(&authority.https(address)).await;

    let plain = reqwest::get(format!("http://{address}/health")).await;
    assert!(
        !plain.is_ok_and(|answer| answer.status().is_success()),
        "the edge speaks TLS only"
    );
    let unknown = reqwest::get(format!("https://{address}/health")).await;
    assert!(
        unknown.is_err(),
        "the certificate is not of a public authority"
    );
    let connect = async |tls| {
        let mut settings = BusSettings::open(nats.url());
        settings.tls = tls;
        Bus::connect(settings.config(&permission::Role::Edge)).await
    };
    let without_ours = TlsFiles {
        cert: None,
        key: None,
        ..authority.files()
    };
    assert!(
        connect(Some(without_ours)).await.is_err(),
        "no client certificate"
    );
    assert!(
        connect(None).await.is_err(),
        "an authority that is not trusted"
    );
    connect(Some(authority.files())).await.unwrap();
}

/// The program as a shell sees it: its exit code and what it prints.
async fn quintet(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env_remove("QUINTET_TOKEN")
        .env_remove("QUINTET_CA")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn every_verb_speaks_tls_and_sends_its_key_as_a_header() {
    let authority = Authority::new();
    let nats = Nats::start().await.unwrap();
    let system = part(&nats, |config| {
        whole(config);
        for part in &mut config.parts {
            if let Part::Edge(edge) = part {
                let (cert, key) = (authority.file("cert.pem"), authority.file("key.pem"));
                edge.tls = Some(Tls { cert, key });
                edge.api_keys = vec![ApiKey::new("me", Role::Operator, "a key / of + any & kind")];
            }
        }
    })
    .await;
    system.ready(TIMEOUT).await.unwrap();
    let url = format!("https://{}", system.address().unwrap());
    let ca = authority.file("ca.pem");
    let known = ["--url", &url, "--ca", ca.to_str().unwrap()];
    let keyed = [&known[..], &["--token", "a key / of + any & kind"]].concat();
    for (verb, expected) in [
        (
            &["jobs", "submit", "--wait", "--exec", "--", "true"][..],
            "STOPPED",
        ),
        (&["jobs", "list"], "STOPPED"),
        (&["agents", "list"], "agent-1"),
        (&["top", "--once"], "agent-1"),
    ] {
        let (code, text) = quintet(&[&keyed[..], verb].concat()).await;
        assert!(
            code == Some(0) && text.contains(expected),
            "{verb:?}: {text}"
        );
        let (code, text) = quintet(&[&known[..], verb].concat()).await;
        assert_eq!(code, Some(4), "without a key, {verb:?}: {text}");
        let (code, text) = quintet(&[&["--url", &url], verb].concat()).await;
        assert_eq!(
            code,
            Some(5),
            "of an authority that is not trusted, {verb:?}: {text}"
        );
    }
    let (code, text) = quintet(&["--url", &url, "--ca", "/nowhere.pem", "jobs", "list"]).await;
    assert!(code == Some(2) && text.contains("--ca"), "{text}");
}

/// A signed claim of NATS' decentralised authentication, version 2.
fn claim(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: Value) -> String {
    let encode = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let body = json!({
        "jti": name, "iat": 0, "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": nats,
    });
    let text = format!(
        "{}.{}",
        encode(json!({"typ": "JWT", "alg": "ed25519-nkey"})),
        encode(body)
    );
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// The configuration of a server that trusts an operator, and the credentials file of one of its users.
fn decentralised(folder: &Path) -> (String, PathBuf) {
    let (operator, account, system) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
    );
    let user = KeyPair::new_user();
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_account = json!({"type": "account", "version": 2, "limits": unlimited});
    let of_system = json!({"type": "account", "version": 2, "limits": {
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    }});
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n  {}: {}\n  {}: {}\n}}\n",
        claim(
            &operator,
            &operator,
            "operator",
            json!({"type": "operator", "version": 2})
        ),
        system.public_key(),
        account.public_key(),
        claim(&operator, &account, "account", of_account),
        system.public_key(),
        claim(&operator, &system, "system", of_system),
    );
    let of_user = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}});
    let file = folder.join("user.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n\
         ------END USER NKEY SEED------\n",
        claim(&account, &user, "user", of_user),
        user.seed().unwrap()
    );
    fs::write(&file, text).unwrap();
    (config, file)
}

#[tokio::test]
async fn a_credentials_file_lets_every_part_in() {
    let folder = TempDir::new().unwrap();
    let (config, file) = decentralised(folder.path());
    let nats = server(config).await;
    let system = part(&nats, |config| {
        whole(config);
        config.bus.credentials = Credentials::File(file.clone()).into();
    })
    .await;
    system.ready(TIMEOUT).await.unwrap();
    runs_a_job(&Api::new(system.address().unwrap())).await;

    let refused = Bus::connect(BusSettings::open(nats.url()).config(&permission::Role::Edge)).await;
    assert!(
        matches!(refused, Err(ConnectError::Refused { .. })),
        "{refused:?}"
    );
    let mut missing = BusSettings::open(nats.url());
    missing.credentials = Credentials::File(folder.path().join("none.creds")).into();
    let missing = Bus::connect(missing.config(&permission::Role::Edge)).await;
    assert!(
        matches!(missing, Err(ConnectError::Credentials { .. })),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_once_and_never_waited_on() {
    let nats = server("authorization { user: me, password: right }".to_owned()).await;
    let mut settings = BusSettings::open(nats.url());
    settings.credentials = Credentials::UserPassword {
        user: "me".to_owned(),
        password: Secret::new("wrong"),
    }
    .into();
    let refused = Bus::connect(settings.config(&permission::Role::Scheduler)).await;
    let Err(error @ ConnectError::Refused { .. }) = refused else {
        panic!("{refused:?}");
    };
    let text = error.to_string();
    assert!(text.contains("quintet scheduler"), "{text}");
    assert!(!text.contains("wrong"), "a password is never shown: {text}");
}
