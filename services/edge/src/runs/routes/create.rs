//! New runs: `POST /runs`, which creates a run or plans it without creating one.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use quintet_bus::new_run_id;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{MAX_NAME_BYTES, RunId};
use quintet_contract::plan::{Plan, PlanView, Problem};
use quintet_contract::run::{Run, RunMode, RunStatus};
use quintet_contract::run_api::{CreateRun, PlanRun};
use quintet_contract::{JsonObject, nesting};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::docs::{Presence, with_header};
use crate::http::extract::{Headers, JsonBody, PathId};
use crate::http::query::{Query, QueryParams};
use crate::runs::Mount;
use crate::runs::client::RunsClient;

/// The creator of a run, as claimed by the client.
pub(crate) const ACTOR: HeaderName = HeaderName::from_static("x-actor-id");
/// Longest name of a run in characters.
const MAX_RUN_NAME: usize = 256;
/// What may stand after `?mode=`.
const MODES: [&str; 4] = ["plan", "queue", "redis", "k8s"];

/// What is wanted of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// To know what it would do.
    Plan,
    /// To have it done.
    Run(RunMode),
}

/// What makes a run.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct NewRun {
    /// What it does; without one an outside program does it.
    #[serde(default)]
    #[schemars(with = "Option<Plan>")]
    plan: Option<Value>,
    /// What `{{inputs.x}}` stands for.
    #[serde(default)]
    inputs: Option<JsonObject>,
    /// Its display name.
    #[serde(default)]
    #[schemars(length(max = MAX_RUN_NAME))]
    name: Option<String>,
    /// Whatever its creator wants to find again.
    #[serde(default)]
    metadata: Option<JsonObject>,
}

/// What a plan would do.
#[derive(Serialize, JsonSchema)]
struct Planned {
    /// `plan`.
    mode: &'static str,
    /// What would run, in which order.
    plan: PlanView,
}

/// A new run.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Created {
    /// Its id.
    run_id: RunId,
    /// The same.
    id: RunId,
    /// Its status.
    status: RunStatus,
    /// The run.
    run: Run,
}

/// The parameters of a new run.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct CreateParams {
    /// `plan`: store nothing, answer what would happen. `queue` or `redis`: run workers take the tasks. `k8s`: each
    /// command is a Kubernetes Job. Without it `plan` under `/runs`, `queue` under `/v1/runs`.
    #[schemars(extend("enum" = MODES))]
    mode: Option<String>,
    /// Who creates it, where the header cannot be sent.
    #[schemars(length(max = MAX_NAME_BYTES), regex(pattern = r"^[ -~]*$"))]
    owner: Option<String>,
}

impl QueryParams for CreateParams {
    fn expected(_: &str) -> String {
        "a text".to_owned()
    }
}

/// Documents the headers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "describes the headers")]
struct CreateHeaders {
    /// Who creates it; stronger than `owner` of the query.
    #[schemars(length(max = MAX_NAME_BYTES), regex(pattern = "^([!-~]([ -~]*[!-~])?)?$"))]
    x_actor_id: Option<String>,
}

pub(crate) async fn create(
    State(runs): State<RunsClient>,
    Extension(mount): Extension<Mount>,
    headers: HeaderMap,
    Query(params): Query<CreateParams>,
    JsonBody(new, _): JsonBody<NewRun>,
) -> Result<Response, HttpError> {
    let wanted = wanted(mount, params.mode.as_deref())?;
    let owner = owner(&headers, params.owner)?;
    check(&new)?;
    let mode = match wanted {
        Wanted::Run(mode) => mode,
        Wanted::Plan => return plan(&runs, new.plan).await,
    };
    let create = CreateRun {
        run_id: new_run_id(),
        mode,
        plan: new.plan,
        inputs: new.inputs,
        name: new.name,
        metadata: new.metadata,
        owner,
        retry_of: None,
        finished: Default::default(),
    };
    Ok(created(mount, runs.create_run(&create).await?))
}

async fn plan(runs: &RunsClient, plan: Option<Value>) -> Result<Response, HttpError> {
    let Some(plan) = plan else {
        let text = "there is no plan to look at; send one, or ask for mode=queue";
        return Err(invalid_plan("missing", text));
    };
    let mode = RunMode::Queue;
    let plan = runs.plan_run(&PlanRun { plan, mode }).await?.plan;
    Ok(Json(Planned { mode: "plan", plan }).into_response())
}

fn created(mount: Mount, run: Run) -> Response {
    let location = [(header::LOCATION, mount.location(run.id))];
    let body = Created {
        run_id: run.id,
        id: run.id,
        status: run.status,
        run,
    };
    (StatusCode::CREATED, location, Json(body)).into_response()
}

fn wanted(mount: Mount, mode: Option<&str>) -> Result<Wanted, HttpError> {
    match (mode, mount) {
        (Some("plan"), _) | (None, Mount::Root) => Ok(Wanted::Plan),
        (Some("queue" | "redis"), _) | (None, Mount::Versioned) => Ok(Wanted::Run(RunMode::Queue)),
        (Some("k8s"), _) => Ok(Wanted::Run(RunMode::K8s)),
        (Some(_), _) => {
            let text = format!("unknown mode; mode must be one of {}", MODES.join(", "));
            let reply = ErrorReply::new(ErrorCode::BadRequest, text);
            let reply = reply.with("field", "mode").with("allowed", json!(MODES));
            Err(reply.into())
        }
    }
}

/// Who creates the run: by header, else by parameter.
fn owner(headers: &HeaderMap, param: Option<String>) -> Result<Option<String>, HttpError> {
    let owner = claimed(headers).or(param);
    checked("owner", owner)
}

/// Whom a client acts for, as it claims.
pub(crate) fn actor(headers: &HeaderMap) -> Result<Option<String>, HttpError> {
    checked("x-actor-id", claimed(headers))
}

fn claimed(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(&ACTOR);
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    header.filter(|text| !text.is_empty())
}

fn checked(field: &str, name: Option<String>) -> Result<Option<String>, HttpError> {
    if let Some(name) = &name
        && (name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control))
    {
        let text = format!(
            "the {field} must be at most {MAX_NAME_BYTES} bytes long and hold no control characters"
        );
        return Err(HttpError::invalid(field, text));
    }
    Ok(name)
}

/// What the runner does not check. It reports what is wrong with the plan itself.
fn check(new: &NewRun) -> Result<(), HttpError> {
    for (field, object) in [("inputs", &new.inputs), ("metadata", &new.metadata)] {
        if let Some(object) = object {
            nesting::check(field, object)?;
        }
    }
    let name = new.name.as_deref().unwrap_or_default();
    if name.chars().count() > MAX_RUN_NAME {
        let text = format!("name must be at most {MAX_RUN_NAME} characters long");
        return Err(HttpError::invalid("name", text));
    }
    if let Some(plan) = &new.plan
        && !nesting::is_bounded(plan)
    {
        let levels = nesting::MAX_LEVELS;
        let text = format!("the plan must not be nested deeper than {levels} levels");
        return Err(invalid_plan("limit", text));
    }
    Ok(())
}

/// The runner's error for a plan with this one problem.
fn invalid_plan(code: &str, message: impl Into<String>) -> HttpError {
    let problem = Problem {
        path: String::new(),
        code: code.to_owned(),
        message: message.into(),
    };
    let reply = ErrorReply::new(ErrorCode::ValidationFailed, "invalid plan");
    reply.with("problems", json!([problem])).into()
}

pub(crate) fn create_docs(operation: Operation<'_>) -> Operation<'_> {
    let operation = with_body(operation)
        .id("createRun")
        .summary("Create a run, or show what a plan would do")
        .description(
            "With `mode=plan` nothing is stored. A run with a plan is executed; one without belongs to an outside program, \
             which posts checkpoints and completes it. An invalid plan is answered 422 with all its `problems`.",
        )
        .tag("runs")
        .input::<Headers<CreateHeaders>>()
        .response::<200, Json<Planned>>();
    created_docs(operation)
}

fn created_docs(operation: Operation<'_>) -> Operation<'_> {
    operation.response_with::<201, Json<Created>, _>(|response| {
        let response = response.description("the new run");
        with_header(response, "location", Presence::Always, "where the run is")
    })
}

pub(crate) async fn retry(
    State(runs): State<RunsClient>,
    Extension(mount): Extension<Mount>,
    PathId(id): PathId<RunId>,
) -> Result<Response, HttpError> {
    let run = runs.retry_run(id).await?;
    Ok(created(mount, run))
}

pub(crate) fn retry_docs(operation: Operation<'_>) -> Operation<'_> {
    let operation = of_one(guarded(operation))
        .id("retryRun")
        .summary("Continue an ended run in a new one")
        .description("The new run has the same plan and inputs; what succeeded in the old one is not done again.")
        .tag("runs")
        .response::<409, Json<ErrorBody>>()
        .response::<413, Json<ErrorBody>>()
        .response::<422, Json<ErrorBody>>();
    created_docs(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_selects_the_operation_and_an_unknown_one_is_refused_by_name() {
        let run = Wanted::Run(RunMode::Queue);
        for (mount, mode, expected) in [
            (Mount::Root, None, Wanted::Plan),
            (Mount::Versioned, None, run),
            (Mount::Root, Some("queue"), run),
            (Mount::Root, Some("redis"), run),
            (Mount::Versioned, Some("plan"), Wanted::Plan),
            (Mount::Versioned, Some("k8s"), Wanted::Run(RunMode::K8s)),
        ] {
            assert_eq!(wanted(mount, mode).unwrap(), expected, "{mount:?} {mode:?}");
        }
        let refused = wanted(Mount::Root, Some("Queue")).unwrap_err();
        assert_eq!(refused.reply.code.http_status(), 400);
        assert!(refused.reply.error.contains("plan, queue, redis, k8s"));
    }
}
