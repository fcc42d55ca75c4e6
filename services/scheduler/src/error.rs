//! Errors of a scheduler that end it. Everything that may pass is tried again by its leader instead.

/// Why a scheduler cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot lead, or a part of it ended.
    #[error(transparent)]
    Leader(#[from] quintet_leader::Error),
}
