//! The clients: each repeats its request until it is answered.

use super::*;

impl World {
    pub(super) fn send_request(&mut self, index: usize) {
        let question: Arc<dyn Fn(u64) -> Question + Send + Sync> =
            match self.clients[index].request.clone() {
                ClientRequest::Submit(id, key) => {
                    let millis = self.dice.random_range(500..40_000);
                    let again = self.dice.random_bool(0.6);
                    // A repeated request must be the same; the first request with a key decides what the key stands
                    // for.
                    let seed = id.as_str().len() as i64 + index as i64;
                    let config = json!({"executor": "noop", "durationMs": millis.max(seed)});
                    let submit = Box::new(SubmitJob {
                        job_id: Some(id),
                        idempotency_key: key,
                        inline_config: config.as_object().cloned(),
                        restart_policy: Some(if again {
                            RestartPolicy::OnFailure
                        } else {
                            RestartPolicy::Never
                        }),
                        max_restarts: Some(1000),
                        ..SubmitJob::default()
                    });
                    Arc::new(move |number| Question::Submit(RequestId::new(number), submit.clone()))
                }
                ClientRequest::Stop(id) => Arc::new(move |number| {
                    Question::Stop(RequestId::new(number), JobRef { id: id.clone() })
                }),
                ClientRequest::Drain(id, drain) => {
                    if !drain {
                        self.drained.remove(&id);
                    }
                    let drain = DrainAgent { id, drain };
                    Arc::new(move |number| Question::Drain(RequestId::new(number), drain.clone()))
                }
            };
        let call = Call::Client(index);
        self.call(
            Who::World,
            call,
            CLIENT_DEADLINE,
            Request::Question(question),
        );
    }

    pub(super) fn client_answered(&mut self, index: usize, answer: Answer) {
        self.clients[index].done = true;
        if let Answer::Refused(error) = &answer {
            // Of all things that are wanted here only an agent may never have been seen.
            let is_drain = matches!(self.clients[index].request, ClientRequest::Drain(..));
            assert!(is_drain && error.code == ErrorCode::NotFound, "{error:?}");
        }
        match (self.clients[index].request.clone(), answer) {
            (ClientRequest::Submit(id, key), Answer::Submitted(reply)) => {
                let made = reply.job.id;
                if let Some(key) = key {
                    let before = self.keys.insert(key, made.clone());
                    assert!(
                        before.is_none_or(|before| before == made),
                        "one key made two jobs"
                    );
                } else {
                    assert_eq!(made, id);
                }
                self.submitted.insert(made);
            }
            (ClientRequest::Drain(id, true), Answer::Agent(_)) => {
                // Unless it was taken back meanwhile.
                let newest = self
                    .clients
                    .iter()
                    .rev()
                    .find_map(|client| match &client.request {
                        ClientRequest::Drain(other, drain) if *other == id => Some(*drain),
                        _ => None,
                    });
                if newest == Some(true) {
                    self.drained.insert(id);
                }
            }
            _ => {}
        }
    }
}
