//! The client's side of HTTP: JSON in and out, failures as sentences with the exit code they deserve.

use std::path::Path;

use anyhow::Context;
use quintet_bus::redact_url;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::cli::exit::{self, Failure};
use crate::cli::global::Global;

/// A client of one edge.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    base: String,
    token: Option<String>,
}

impl Http {
    /// A client with the key of an API, if one is set. A server that speaks TLS is trusted for a certificate of the
    /// system's authorities.
    pub fn new(base: &str, token: Option<String>) -> anyhow::Result<Self> {
        Self::with(base, token, None)
    }

    /// The client that the command line describes.
    pub(crate) fn of(global: &Global) -> anyhow::Result<Self> {
        Self::with(&global.url, global.token.clone(), global.ca.as_deref())
    }

    /// As [`Http::new`], trusting the authorities in a file alone if one is given.
    pub(crate) fn with(
        base: &str,
        token: Option<String>,
        ca: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            let text = format!(
                "{:?} is no address of an edge, such as http://127.0.0.1:8080",
                redact_url(&base)
            );
            return Err(Failure::new(exit::USAGE, text).into());
        }
        // Websockets are an upgrade of HTTP/1.1.
        let mut client = Client::builder().http1_only();
        if let Some(file) = ca {
            client = client.tls_certs_only(certificates(file)?);
        }
        Ok(Self {
            client: client.build().context("cannot set up HTTP")?,
            base,
            token,
        })
    }

    /// The address of the server, without credentials.
    pub(crate) fn address(&self) -> String {
        redact_url(&self.base)
    }

    /// A request with the key as a header.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; a refusal is a failure.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let sent = request.send().await;
        let response = sent.map_err(|error| self.unreachable(error))?;
        Self::checked(response).await
    }

    /// Gets bytes with the tag that names them; nothing when they are still those of a tag.
    pub(crate) async fn get_unless(
        &self,
        path: &str,
        tag: Option<&str>,
    ) -> anyhow::Result<Option<(Vec<u8>, Option<String>)>> {
        let mut request = self.request(Method::GET, path);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let sent = request.send().await;
        let response = sent.map_err(|error| self.unreachable(error))?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let response = Self::checked(response).await?;
        let tag = response.headers().get(ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let bytes = response.bytes().await.context("the answer broke off")?;
        Ok(Some((bytes.to_vec(), tag)))
    }

    async fn checked(response: Response) -> anyhow::Result<Response> {
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if response.status().is_success() || is_upgrade {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap_or_default();
        let sentence = body["error"]
            .as_str()
            .unwrap_or("the server gave no reason");
        let code = if status == 404 {
            exit::NOT_FOUND
        } else {
            exit::REFUSED
        };
        let id = body["requestId"]
            .as_str()
            .map(|id| format!(" (status {status}, request {id})"))
            .unwrap_or_default();
        let (transition, problems) = (transition(&body), problems(&body));
        Err(Failure::new(code, format!("{sentence}{transition}{id}{problems}")).into())
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        // The address in the error is that of the request, credentials included.
        let error = error.without_url();
        let text = format!(
            "cannot reach {}; is it running (`quintet up`), and is --url right? {}",
            self.address(),
            quintet_service::telemetry::chain(&error)
        );
        Failure::new(exit::UNREACHABLE, text).into()
    }

    async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.send(request).await?;
        response.json().await.context("the answer is not JSON")
    }

    /// Gets JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::GET, path)).await
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// Posts an empty body.
    pub async fn post_empty(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::POST, path)).await
    }

    /// Puts JSON.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    /// Deletes.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::DELETE, path)).await
    }
}

/// The certificates of authorities in a file, PEM.
fn certificates(file: &Path) -> anyhow::Result<Vec<Certificate>> {
    let wrong = |reason: String| {
        let text = format!("cannot use {} as --ca: {reason}", file.display());
        Failure::new(exit::USAGE, text)
    };
    let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem);
    match found.map_err(|error| wrong(error.to_string()))? {
        none if none.is_empty() => Err(wrong("it holds no certificate".to_owned()).into()),
        found => Ok(found),
    }
}

/// Which transition was refused, where the answer names it.
fn transition(body: &Value) -> String {
    match (body["from"].as_str(), body["to"].as_str()) {
        (Some(from), Some(to)) => format!(": what is {from} cannot become {to}"),
        _ => String::new(),
    }
}

/// All that is wrong with what was sent, a line each, where the answer names it.
fn problems(body: &Value) -> String {
    let lists = [&body["problems"], &body["details"]];
    let problems = lists.into_iter().filter_map(Value::as_array).flatten();
    problems
        .map(|problem| {
            let path = problem["path"].as_str().unwrap_or_default();
            let colon = if path.is_empty() { "" } else { ": " };
            let message = problem["message"].as_str().unwrap_or_default();
            format!("\n  {path}{colon}{message}")
        })
        .collect()
}

/// A name as it stands in a path.
pub(crate) fn path_of(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_problem_has_a_line_with_its_path() {
        let body = json!({"problems": [
            {"path": "nodes[1].needs[0]", "code": "danglingEdge", "message": "there is no node x"},
            {"path": "", "code": "limit", "message": "the plan is too large"},
        ]});
        let expected = "\n  nodes[1].needs[0]: there is no node x\n  the plan is too large";
        assert_eq!(problems(&body), expected);
        assert_eq!(problems(&json!({})), "");
    }
}
