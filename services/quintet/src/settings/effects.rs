//! Settings of the worker that offers effects.

use quintet_service::settings::{Reader, Setting};
use quintet_workers::effects::EffectsConfig;

use super::shared::setting;

/// The settings of this file.
pub(crate) const TABLE: &[Setting] = &[setting(
    "effects_prefix",
    "EFFECTS_PREFIX",
    None,
    "put before the names of the effects that a worker offers, so that those of two programs differ",
)];

/// Reads [`TABLE`].
pub(crate) fn read(read: &mut Reader<'_>) -> EffectsConfig {
    EffectsConfig {
        prefix: read.optional("effects_prefix"),
    }
}
