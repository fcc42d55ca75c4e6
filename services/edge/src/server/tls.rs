//! TLS of the listener.

use axum_server::tls_rustls::RustlsConfig;

use crate::config::Tls;
use crate::error::Error;

/// Reads certificate and key.
pub(super) async fn load(files: &Tls) -> Result<RustlsConfig, Error> {
    let loaded = RustlsConfig::from_pem_file(&files.cert, &files.key).await;
    loaded.map_err(|source| Error::Tls {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    })
}
