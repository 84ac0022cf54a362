//! The TLS of everything that leaves a task container: `ring`, and certificate authorities that are built in,
//! because an image may hold none.

use std::path::Path;

use rustls::pki_types::{CertificateDer, pem::PemObject};

/// More authorities are unlikely to be meant; a larger file is refused.
const MAX_CA_FILE_BYTES: u64 = 1 << 20;

/// The client side: the web's authorities, and those of the PEM file `extra` if there is one.
///
/// # Errors
/// `extra` cannot be read, is larger than 1 MiB, or holds no certificate. The text says which.
pub fn client_config(extra: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = extra {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let size = std::fs::metadata(path).map_err(|error| told(&error))?.len();
        if size > MAX_CA_FILE_BYTES {
            return Err(told(&"larger than 1 MiB"));
        }
        let mut count = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| told(&error))? {
            roots.add(certificate.map_err(|error| told(&error))?).map_err(|error| told(&error))?;
            count += 1;
        }
        if count == 0 {
            return Err(told(&"no certificate in it"));
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(client_config(Some(file.path())).unwrap_err().contains("no certificate"));
        assert!(client_config(Some(Path::new("/nowhere.pem"))).is_err());
        assert!(client_config(None).is_ok());
    }
}
