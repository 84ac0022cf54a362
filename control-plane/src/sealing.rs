//! Sealing of secrets at rest: XChaCha20-Poly1305 with a random nonce before each text. The associated data
//! ties a sealed text to its owner row, so that one copied into another row does not open.

use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

const NONCE_BYTES: usize = 24;

/// A sealed text that does not open: another key, another row, or damage.
#[derive(Debug, thiserror::Error)]
#[error("a sealed value does not open: the encryption key is not the one it was sealed with")]
pub struct Unopenable;

/// No key of 32 bytes.
#[derive(Debug, thiserror::Error)]
#[error("the encryption key must be 32 bytes as 64 hex digits or as base64")]
pub struct BadKey;

/// Seals and opens; the only holder of the key.
#[derive(Clone)]
pub struct Sealer(XChaCha20Poly1305);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(&Key::from(*key)))
    }

    /// Reads a key as an operator writes it: 64 hex digits, or base64 of 32 bytes.
    pub fn from_text(text: &str) -> Result<Self, BadKey> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let text = text.trim();
        let bytes = hex::decode(text).or_else(|_| STANDARD.decode(text)).map_err(|_| BadKey)?;
        let key: [u8; 32] = bytes.try_into().map_err(|_| BadKey)?;
        Ok(Self::new(&key))
    }

    /// # Panics
    /// The system gives no randomness: going on without would give secrets away.
    pub fn seal(&self, owner_row: &str, text: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the system gives randomness");
        let payload = Payload { msg: text, aad: owner_row.as_bytes() };
        let sealed = self
            .0
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a text that fits into memory can be sealed");
        let mut out = nonce.to_vec();
        out.extend(sealed);
        out
    }

    pub fn open(&self, owner_row: &str, sealed: &[u8]) -> Result<Vec<u8>, Unopenable> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Unopenable)?;
        let payload = Payload { msg: text, aad: owner_row.as_bytes() };
        self.0.decrypt(&XNonce::from(*nonce), payload).map_err(|_| Unopenable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_in_its_own_row_with_its_own_key_only() {
        let sealer = Sealer::new(&[7; 32]);
        let kept = sealer.seal("env_1", b"hunter2");
        assert_eq!(sealer.open("env_1", &kept).unwrap(), b"hunter2");
        assert!(sealer.open("env_2", &kept).is_err());
        assert!(Sealer::new(&[8; 32]).open("env_1", &kept).is_err());
        assert!(sealer.open("env_1", &kept[..10]).is_err());
        assert_ne!(kept, sealer.seal("env_1", b"hunter2"), "the nonce is new each time");
    }

    #[test]
    fn a_key_is_hex_or_base64() {
        assert!(Sealer::from_text(&"ab".repeat(32)).is_ok());
        assert!(Sealer::from_text("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").is_ok());
        assert!(Sealer::from_text("short").is_err());
    }
}
