//! TLS: certificates of the system, or of the file that `SSL_CERT_FILE` names.

use std::sync::Arc;

use crate::endpoint::EndpointError;

/// Returns the settings of a client. The provider of cryptography is given here, so none is set for
/// the whole process.
pub(crate) fn client() -> Result<rustls::ClientConfig, EndpointError> {
    let mut roots = rustls::RootCertStore::empty();
    // Without any certificate, connections with TLS fail with a message of their own.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| EndpointError::Wrong(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
