//! An HTTP client for tests, whatever TLS features the rest of the build has switched on.

/// A client. In a build of the whole workspace reqwest has TLS and wants to be told whose; alone it has none.
///
/// # Panics
/// Never: it has no settings that could be wrong.
pub fn client() -> reqwest::Client {
    // Somebody may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client without settings")
}
