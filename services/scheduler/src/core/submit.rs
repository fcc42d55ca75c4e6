//! Submission: new jobs, and the idempotency keys that keep them unique.
//!
//! A job with an idempotency key is stored only after its key was claimed in the bucket, where one claim wins over all
//! schedulers there ever were. The claim carries the job, so that a scheduler that finds the key without the job can
//! create it. Submissions of a key whose claim is in flight wait for it.

use std::collections::HashMap;

use quintet_contract::JsonObject;
use quintet_contract::api::{
    BatchEntry, BatchReply, MAX_BATCH, SubmitBatch, SubmitJob, SubmitReply,
};
use quintet_contract::cause::TraceId;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{IdempotencyKey, JobId};
use quintet_contract::job::{
    Attempt, Job, JobPrivate, JobRecord, JobStatus, KeyRecord, TimelineEntry,
};
use quintet_contract::metadata;
use quintet_contract::reply::RequestId;
use quintet_contract::time::Timestamp;
use sha2::{Digest, Sha256};

use super::Core;
use super::event::{Action, Claim, Traceparent};

/// Most bytes of configuration, parameters and metadata together: a record must fit a message of the bus.
const MAX_JOB_BYTES: usize = 512 * 1024;
/// The submitter of a job without a named one.
const ANONYMOUS: &str = "anonymous";

/// Keys whose claims are in flight, and the waiters for each.
pub(super) type Claims = HashMap<IdempotencyKey, Vec<Waiting>>;

/// A submission that waits for its key.
#[derive(Debug)]
pub(super) struct Waiting {
    record: JobRecord,
    strict: bool,
    reply_to: ReplyTo,
}

/// Where the answer to one submission goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReplyTo {
    /// To its own request.
    Single(RequestId<SubmitReply>),
    /// Into a batch's answer.
    Batch { pending_batch: u64, index: usize },
}

/// A batch whose answers come in one by one.
#[derive(Debug)]
pub(super) struct PendingBatch {
    to: RequestId<BatchReply>,
    results: Vec<BatchEntry>,
    open: usize,
}

type Outcome = Result<SubmitReply, ErrorReply>;

impl Core {
    pub(super) fn submit_one(
        &mut self,
        from: RequestId<SubmitReply>,
        submit: SubmitJob,
        trace: Traceparent,
        now: Timestamp,
    ) {
        self.submit(submit, ReplyTo::Single(from), trace, now);
    }

    pub(super) fn submit_batch(
        &mut self,
        from: RequestId<BatchReply>,
        batch: SubmitBatch,
        trace: &Traceparent,
        now: Timestamp,
    ) {
        let count = batch.jobs.len();
        if count > MAX_BATCH {
            let text =
                format!("a batch holds at most {MAX_BATCH} jobs, this one holds {count}; split it");
            return self.reply(from, Err(ErrorReply::invalid("jobs", text)));
        }
        if count == 0 {
            let results = Vec::new();
            return self.reply(from, Ok(BatchReply { results }));
        }
        let pending_batch = self.next_gather;
        self.next_gather += 1;
        let nothing = BatchEntry {
            accepted: None,
            refused: None,
        };
        self.pending_batches.insert(
            pending_batch,
            PendingBatch {
                to: from,
                results: vec![nothing; count],
                open: count,
            },
        );
        for (index, submit) in batch.jobs.into_iter().enumerate() {
            self.submit(
                submit,
                ReplyTo::Batch {
                    pending_batch,
                    index,
                },
                trace.clone(),
                now,
            );
        }
    }

    fn submit(&mut self, submit: SubmitJob, reply_to: ReplyTo, trace: Traceparent, now: Timestamp) {
        let strict = submit.strict;
        let record = match self.new_record(submit, trace, now) {
            Ok(record) => record,
            Err(error) => return self.complete_submission(reply_to, Err(error)),
        };
        if let Some(known) = self.jobs.get(&record.job.id) {
            // The same request again: its first answer was lost.
            let job = known.job.clone();
            return self.complete_submission(reply_to, Ok(SubmitReply { job, created: true }));
        }
        let Some(key) = record.job.idempotency_key.clone() else {
            return self.admit(record, reply_to, now);
        };
        if let Some(id) = self.keys.get(&key).cloned() {
            return self.known(&id, &record, strict, reply_to);
        }
        let waiting = Waiting {
            record,
            strict,
            reply_to,
        };
        if let Some(queue) = self.claims.get_mut(&key) {
            return queue.push(waiting);
        }
        self.claim(&key, &waiting.record, 0);
        self.claims.insert(key, vec![waiting]);
    }

    fn claim(&mut self, key: &IdempotencyKey, first: &JobRecord, replaces: u64) {
        let record = KeyRecord {
            job_id: first.job.id.clone(),
            pool: self.config.pool.clone(),
            first: first.clone(),
            ended: false,
        };
        self.effects.act(Action::ClaimKey {
            key: key.clone(),
            record: Box::new(record),
            replaces,
        });
    }

    /// A claim was decided, and with it every waiter for it.
    pub(super) fn key_claimed(&mut self, key: &IdempotencyKey, outcome: Claim, now: Timestamp) {
        let Some(mut waiting) = self.claims.remove(key) else {
            return;
        };
        if waiting.is_empty() {
            return;
        }
        match outcome {
            Claim::Created(revision) => {
                let Waiting {
                    mut record,
                    reply_to,
                    ..
                } = waiting.remove(0);
                let id = record.job.id.clone();
                record.private.key_revision = Some(revision);
                self.admit(record, reply_to, now);
                self.answer_waiting(&id, waiting);
            }
            Claim::Failed(error) => {
                for Waiting { reply_to, .. } in waiting {
                    self.complete_submission(reply_to, Err(error.clone()));
                }
            }
            Claim::Taken {
                elsewhere: Some(job),
                record,
                ..
            } => {
                for Waiting {
                    record: wanted,
                    strict,
                    reply_to,
                } in waiting
                {
                    let outcome =
                        same_request(&record.first, &wanted, strict).map(|()| SubmitReply {
                            job: (*job).clone(),
                            created: false,
                        });
                    self.complete_submission(reply_to, outcome);
                }
            }
            Claim::Taken {
                record,
                revision,
                elsewhere: None,
            } => {
                if self.jobs.contains_key(&record.job_id) {
                    self.keys.insert(key.clone(), record.job_id.clone());
                    self.answer_waiting(&record.job_id, waiting);
                } else if record.ended {
                    // The job has expired, and its key with it: the next in line starts again.
                    self.claim(key, &waiting[0].record, revision);
                    self.claims.insert(key.clone(), waiting);
                } else {
                    // The scheduler that claimed the key died before it stored the job.
                    let mut first = record.first.clone();
                    first.private.key_revision = Some(revision);
                    self.store_new(first, now);
                    self.answer_waiting(&record.job_id, waiting);
                }
            }
        }
    }

    fn answer_waiting(&mut self, id: &JobId, waiting: Vec<Waiting>) {
        for Waiting {
            record,
            strict,
            reply_to,
        } in waiting
        {
            self.known(id, &record, strict, reply_to);
        }
    }

    /// The key stands for this job already.
    fn known(&mut self, id: &JobId, wanted: &JobRecord, strict: bool, reply_to: ReplyTo) {
        let Some(known) = self.jobs.get(id) else {
            return;
        };
        let created = known.job.id == wanted.job.id;
        let outcome = same_request(known, wanted, strict).map(|()| SubmitReply {
            job: known.job.clone(),
            created,
        });
        self.complete_submission(reply_to, outcome);
    }

    fn admit(&mut self, record: JobRecord, reply_to: ReplyTo, now: Timestamp) {
        let job = record.job.clone();
        self.store_new(record, now);
        self.complete_submission(reply_to, Ok(SubmitReply { job, created: true }));
    }

    fn store_new(&mut self, record: JobRecord, now: Timestamp) {
        let id = record.job.id.clone();
        self.insert(Box::new(record));
        self.store_job(&id);
        self.enqueue(&id, now);
        self.arm(&id);
    }

    fn complete_submission(&mut self, reply_to: ReplyTo, outcome: Outcome) {
        match (reply_to, outcome) {
            (ReplyTo::Single(to), outcome) => self.reply(to, outcome),
            (
                ReplyTo::Batch {
                    pending_batch: id,
                    index,
                },
                outcome,
            ) => {
                let Some(pending_batch) = self.pending_batches.get_mut(&id) else {
                    return;
                };
                pending_batch.results[index] = match outcome {
                    Ok(accepted) => BatchEntry {
                        accepted: Some(accepted),
                        refused: None,
                    },
                    Err(refused) => BatchEntry {
                        accepted: None,
                        refused: Some(refused),
                    },
                };
                pending_batch.open -= 1;
                if pending_batch.open == 0
                    && let Some(PendingBatch { to, results, .. }) = self.pending_batches.remove(&id)
                {
                    self.reply(to, Ok(BatchReply { results }));
                }
            }
        }
    }

    /// The record of a job that this request wants, stored nowhere yet.
    pub(super) fn new_record(
        &self,
        submit: SubmitJob,
        traceparent: Traceparent,
        now: Timestamp,
    ) -> Result<JobRecord, ErrorReply> {
        submit.check()?;
        self.check_size(&submit)?;
        self.check_params(&submit)?;
        let request_digest = digest(&submit);
        let Some(id) = submit.job_id else {
            return Err(ErrorReply::invalid(
                "jobId",
                "a submission on the bus names the id that its job shall have",
            ));
        };
        let status = match submit.not_before {
            Some(not_before) if not_before > now => JobStatus::Created,
            Some(_) | None => JobStatus::Pending,
        };
        let mut timeline = vec![TimelineEntry {
            status: JobStatus::Created,
            at: now,
            reason: None,
        }];
        if status == JobStatus::Pending {
            timeline.push(TimelineEntry {
                status,
                at: now,
                reason: None,
            });
        }
        let job = Job {
            id,
            template_id: submit.template_id,
            inline_config: submit.inline_config,
            params: submit.params.unwrap_or_default(),
            status,
            agent_id: None,
            created_at: now,
            updated_at: now,
            started_at: None,
            ended_at: None,
            error: None,
            requested_by: submit.requested_by.unwrap_or_else(|| ANONYMOUS.to_owned()),
            idempotency_key: submit.idempotency_key,
            restart_policy: submit.restart_policy.unwrap_or_default(),
            max_restarts: submit.max_restarts,
            requirements: submit.requirements.unwrap_or_default(),
            priority: submit.priority.unwrap_or_default(),
            not_before: submit.not_before,
            pool: self.config.pool.clone(),
            attempt: Attempt::default(),
            restarts: 0,
            stream_metadata: submit.stream_metadata,
            timeline,
            timeline_dropped: 0,
        };
        Ok(JobRecord {
            job,
            caused_by: submit.caused_by,
            trace_id: traceparent.as_deref().and_then(TraceId::of_traceparent),
            private: JobPrivate {
                request_digest,
                traceparent,
                ..JobPrivate::default()
            },
        })
    }

    fn check_size(&self, submit: &SubmitJob) -> Result<(), ErrorReply> {
        let fields = [
            &submit.inline_config,
            &submit.params,
            &submit.stream_metadata,
        ];
        let bytes: usize = fields.into_iter().flatten().map(size_of_object).sum();
        if bytes > MAX_JOB_BYTES {
            let text = format!(
                "configuration, parameters and metadata of a job may take {MAX_JOB_BYTES} bytes as JSON, these take \
                 {bytes}; put what is larger where the agent can fetch it"
            );
            return Err(ErrorReply::new(ErrorCode::PayloadTooLarge, text));
        }
        match &submit.stream_metadata {
            Some(metadata) => check_metadata_limits(metadata),
            None => Ok(()),
        }
    }

    /// A template that is stored must be fillable.
    fn check_params(&self, submit: &SubmitJob) -> Result<(), ErrorReply> {
        let Some(template) = submit
            .template_id
            .as_ref()
            .and_then(|id| self.templates.get(id))
        else {
            return Ok(());
        };
        let params = submit.params.clone().unwrap_or_default();
        match template.resolve(&params) {
            Ok(_) => Ok(()),
            Err(missing) => {
                Err(ErrorReply::invalid("params", missing.to_string()).with("param", missing.param))
            }
        }
    }
}

/// Metadata of a job must stay small, also when it is merged field by field.
pub(super) fn check_metadata_limits(object: &JsonObject) -> Result<(), ErrorReply> {
    let (fields, bytes) = (object.len(), size_of_object(object));
    if fields > metadata::MAX_FIELDS || bytes > metadata::MAX_BYTES {
        let text = format!(
            "stream metadata may hold {} fields and {} bytes as JSON, this would be {fields} fields and {bytes} bytes",
            metadata::MAX_FIELDS,
            metadata::MAX_BYTES
        );
        return Err(ErrorReply::new(ErrorCode::PayloadTooLarge, text));
    }
    Ok(())
}

/// Bytes that an object takes as JSON.
pub(super) fn size_of_object(object: &JsonObject) -> usize {
    serde_json::to_vec(object).map_or(usize::MAX, |json| json.len())
}

fn same_request(known: &JobRecord, wanted: &JobRecord, strict: bool) -> Result<(), ErrorReply> {
    if !strict || known.private.request_digest == wanted.private.request_digest {
        return Ok(());
    }
    let text = "this idempotency key was first used with a different request; send that request again, or a new key";
    Err(ErrorReply::new(ErrorCode::IdempotencyMismatch, text).with("jobId", known.job.id.as_str()))
}

/// What makes two requests the same: everything but the sender and the id. Objects are written with sorted
/// fields, so their order in the request does not matter.
fn digest(submit: &SubmitJob) -> String {
    let essence = SubmitJob {
        job_id: None,
        requested_by: None,
        caused_by: None,
        strict: false,
        ..submit.clone()
    };
    let json = serde_json::to_vec(&essence).unwrap_or_default();
    Sha256::digest(&json)
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
