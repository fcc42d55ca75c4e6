//! Input of a program: texts for its environment, and the same for files, since Linux takes no variable of any size.

use quintet_contract::JsonObject;
use quintet_contract::job::Attempt;
use quintet_contract::task::{CommandSpec, Task};
use serde::Serialize;
use serde_json::Value;

/// Longest value of a variable that is set; Linux refuses to start a program with one over 128 KiB, its name included.
pub const MAX_VARIABLE_BYTES: usize = 100 * 1024;

/// What a program is given, each a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInput {
    /// INPUT_SPEC: the command and the node's `input`.
    pub spec: String,
    /// INPUT_CONTEXT: the input of the run, the outputs of the nodes before, and the resume state.
    pub context: String,
    /// RESUME_STATE: the node's last checkpoint.
    pub resume_state: Option<String>,
}

#[derive(Serialize)]
struct Spec<'t> {
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'t CommandSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'t Value>,
}

#[derive(Serialize)]
struct Context<'t> {
    inputs: &'t JsonObject,
    context: &'t JsonObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    resume_state: Option<&'t Value>,
}

impl ProgramInput {
    /// What the program of a task is given.
    ///
    /// # Errors
    /// When its input cannot be written as JSON.
    pub fn of(task: &Task, resume_state: Option<&Value>) -> Result<Self, serde_json::Error> {
        let spec = Spec {
            command: task.command.as_ref(),
            input: task.input.as_ref(),
        };
        let context = Context {
            inputs: &task.inputs,
            context: &task.context,
            resume_state,
        };
        Ok(Self {
            spec: serde_json::to_string(&spec)?,
            context: serde_json::to_string(&context)?,
            resume_state: resume_state.map(serde_json::to_string).transpose()?,
        })
    }

    /// The variables of every program: its identity, and of its input what is not too long for one.
    pub fn variables(&self, task: &Task, attempt: Attempt) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("RUN_ID", task.run_id.to_string()),
            ("NODE_ID", task.node_id.to_string()),
            ("ATTEMPT", attempt.to_string()),
        ];
        let texts = self.texts().map(|(name, text)| (name, text.to_owned()));
        variables.extend(texts.filter(|(_, text)| text.len() <= MAX_VARIABLE_BYTES));
        variables
    }

    /// Every input by the name of its variable; the variable `<name>_FILE` names a file with the same text.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let resume_state = self.resume_state.as_deref();
        [
            ("INPUT_SPEC", self.spec.as_str()),
            ("INPUT_CONTEXT", self.context.as_str()),
        ]
        .into_iter()
        .chain(resume_state.map(|state| ("RESUME_STATE", state)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(input: Value) -> Task {
        let task = json!({
            "runId": "019a0000-0000-7000-8000-000000000001", "nodeId": "train", "reportTo": "quintet.report.run.1",
            "command": {"argv": ["python3", "train.py"]}, "input": input, "inputs": {"lr": 0.1},
            "context": {"load": {"rows": 5}},
        });
        serde_json::from_value(task).unwrap()
    }

    #[test]
    fn a_program_gets_its_identity_its_input_and_its_resume_state() {
        let task = task(json!({"epochs": 3}));
        let input = ProgramInput::of(&task, Some(&json!({"epoch": 2}))).unwrap();
        let variables: std::collections::BTreeMap<_, _> =
            input.variables(&task, Attempt(2)).into_iter().collect();
        assert_eq!(variables["ATTEMPT"], "2");
        assert_eq!(variables["NODE_ID"], "train");
        let read = |name: &str| serde_json::from_str::<Value>(&variables[name]).unwrap();
        let spec = json!({"command": {"argv": ["python3", "train.py"]}, "input": {"epochs": 3}});
        assert_eq!(read("INPUT_SPEC"), spec);
        let context = json!({"inputs": {"lr": 0.1}, "context": {"load": {"rows": 5}}, "resume_state": {"epoch": 2}});
        assert_eq!(read("INPUT_CONTEXT"), context);
        assert_eq!(read("RESUME_STATE"), json!({"epoch": 2}));
    }

    #[test]
    fn what_is_too_long_for_a_variable_is_only_in_its_file() {
        let task = task(json!("x".repeat(MAX_VARIABLE_BYTES)));
        let input = ProgramInput::of(&task, None).unwrap();
        let variables = input.variables(&task, Attempt(1));
        let names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["RUN_ID", "NODE_ID", "ATTEMPT", "INPUT_CONTEXT"]);
        let files: Vec<_> = input.texts().map(|(name, _)| name).collect();
        assert_eq!(files, ["INPUT_SPEC", "INPUT_CONTEXT"]);
    }
}
