//! A client of the REST interface that sees everything: status, headers and body.

use std::net::SocketAddr;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use quintet_testkit::wait_for;

use crate::{Feed, TIMEOUT};

/// A client of one edge.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    base: String,
    key: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body as JSON, null when it is none.
    pub body: Value,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

impl Api {
    /// A client of the edge at this address.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            client: Client::new(),
            base: format!("http://{address}"),
            key: None,
        }
    }

    /// A client of an edge that speaks TLS.
    pub fn secure(address: SocketAddr, client: Client) -> Self {
        Self {
            client,
            base: format!("https://{address}"),
            key: None,
        }
    }

    /// The same with an API key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A request that the test completes.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path)).timeout(TIMEOUT);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            text,
            body,
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    /// POST without a body.
    pub async fn order(&self, path: &str) -> Answer {
        self.send(self.request(Method::POST, path)).await
    }

    /// PUT with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Submits a job, which must be made, and returns it.
    pub async fn submit(&self, body: Value) -> Value {
        self.post("/v1/jobs", body).await.expect(201).body
    }

    /// Submits a job that runs until it is stopped, and returns its id.
    pub async fn submit_noop(&self) -> String {
        id_of(
            &self
                .submit(json!({"inlineConfig": {"executor": "noop"}}))
                .await,
        )
    }

    /// The job.
    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await.expect(200).body
    }

    /// Waits until the job has this status, and returns it.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        let what = format!("{status} of job {id}");
        let job = wait_for(&what, TIMEOUT, async || {
            let job = self.job(id).await;
            if job["status"] == status {
                Ok(job)
            } else {
                Err(format!("{} {}", job["timeline"], job["error"]))
            }
        });
        job.await.unwrap()
    }

    /// Waits until the agent has this state, and returns it.
    pub async fn until_agent(&self, id: &str, state: &str) -> Value {
        let what = format!("{state} of agent {id}");
        let agent = wait_for(&what, TIMEOUT, async || {
            let agent = self.get(&format!("/v1/agents/{id}")).await.body;
            if agent["state"] == state {
                Ok(agent)
            } else {
                Err(agent.to_string())
            }
        });
        agent.await.unwrap()
    }

    /// Every status of a job so far.
    pub async fn story(&self, id: &str) -> Vec<String> {
        let job = self.job(id).await;
        let timeline = job["timeline"].as_array().unwrap();
        timeline
            .iter()
            .map(|entry| entry["status"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Opens a stream of server-sent events; `last` is the id to resume after.
    pub async fn events(&self, path: &str, last: Option<&str>) -> Feed {
        let mut request = self
            .client
            .get(self.url(path))
            .header("accept", "text/event-stream");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        Feed::open(request).await
    }
}

fn id_of(job: &Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}
