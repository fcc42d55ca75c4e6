//! Findings of checks, as lines and as JSON.

use serde::Serialize;

/// One check.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    /// The id of the check, which never changes.
    check: &'static str,
    /// What was checked, with its name or address.
    what: String,
    state: State,
    /// What was found, and what to do about it.
    #[serde(rename = "says")]
    message: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Warn,
    Fail,
    /// It could not be made.
    Skip,
}

/// Everything that was found, in order.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a check under its id.
    pub(super) fn add(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        state: State,
        message: impl Into<String>,
    ) {
        self.0.push(Finding {
            check,
            what: what.into(),
            state,
            message: message.into(),
        });
    }

    /// Adds a check that another one makes impossible.
    pub(super) fn skip(&mut self, check: &'static str, what: impl Into<String>, because: &str) {
        self.add(check, what, State::Skip, format!("not checked: {because}"));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many checks ended so.
    pub(super) fn count(&self, state: State) -> usize {
        let ended = self.0.iter().filter(|finding| finding.state == state);
        ended.count()
    }

    /// A line for each: its state, what was checked, and what was found.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|finding| {
            let mark = match finding.state {
                State::Ok => "ok  ",
                State::Warn => "warn",
                State::Fail => "FAIL",
                State::Skip => "skip",
            };
            format!("{mark}  {:<28} {}", finding.what, finding.message)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_check_has_an_id_and_a_line() {
        let mut findings = Findings::default();
        findings.add("nats", "NATS", State::Fail, "does not answer");
        findings.skip("agents", "agents", "NATS does not answer");
        let lines: Vec<String> = findings.lines().collect();
        let expected = [
            "FAIL  NATS                         does not answer",
            "skip  agents                       not checked: NATS does not answer",
        ];
        assert_eq!(lines, expected);
        assert_eq!((findings.len(), findings.count(State::Fail)), (2, 1));
        let first =
            json!({"check": "nats", "what": "NATS", "state": "fail", "says": "does not answer"});
        assert_eq!(serde_json::to_value(&findings).unwrap()[0], first);
    }
}
