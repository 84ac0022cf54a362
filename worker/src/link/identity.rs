//! Who this worker is to the plane.

use secrecy::SecretString;

/// What this worker says of itself.
pub(crate) struct Identity {
    pub(crate) plane_url: String,
    pub(crate) token: SecretString,
    /// New with every start of the process.
    pub(crate) instance_id: String,
    pub(crate) tags: Vec<String>,
    pub(crate) backend: &'static str,
    pub(crate) capacity: u32,
}
