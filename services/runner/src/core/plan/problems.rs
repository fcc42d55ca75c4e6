//! Problems of a plan, collected while it is read and checked.

use quintet_contract::plan::Problem;

/// Problems that were found so far.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, path: impl Into<String>, code: &str, message: impl Into<String>) {
        self.0.push(Problem {
            path: path.into(),
            code: code.to_owned(),
            message: message.into(),
        });
    }
}
