//! Canonical bytes and SHA-256: what every key and result hash is made of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest; displays as 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hex digits: what directories and tables show.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl From<[u8; 32]> for Digest {
    /// A digest computed elsewhere.
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(format!("expected 64 hex digits, found {} characters", text.len()));
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(|| "expected hex digits".to_owned())?;
        }
        Ok(Self(bytes))
    }
}

/// Builds a digest from labelled values. Every value is written as its label, a type tag and a length-prefixed
/// little-endian encoding, so that no two different sequences of values have the same bytes. Floats are hashed
/// by their bits.
#[derive(Clone)]
pub struct Canonical(Sha256);

impl Canonical {
    /// Starts a sequence; `domain` separates the kinds of things that are hashed.
    pub fn new(domain: &str) -> Self {
        let mut this = Self(Sha256::new());
        this.chunk(domain.as_bytes());
        this
    }

    fn chunk(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn value(&mut self, label: &str, tag: u8, bytes: &[u8]) -> &mut Self {
        self.chunk(label.as_bytes());
        self.0.update([tag]);
        self.chunk(bytes);
        self
    }

    /// Adds a string.
    pub fn str(&mut self, label: &str, value: &str) -> &mut Self {
        self.value(label, 1, value.as_bytes())
    }

    /// Adds an unsigned integer.
    pub fn u64(&mut self, label: &str, value: u64) -> &mut Self {
        self.value(label, 2, &value.to_le_bytes())
    }

    /// Adds the bits of an `f64`.
    pub fn f64(&mut self, label: &str, value: f64) -> &mut Self {
        self.value(label, 3, &value.to_bits().to_le_bytes())
    }

    /// Adds the bits of an `f32`.
    pub fn f32(&mut self, label: &str, value: f32) -> &mut Self {
        self.value(label, 4, &value.to_bits().to_le_bytes())
    }

    /// Adds a boolean.
    pub fn bool(&mut self, label: &str, value: bool) -> &mut Self {
        self.value(label, 5, &[u8::from(value)])
    }

    /// Adds another digest.
    pub fn digest(&mut self, label: &str, value: &Digest) -> &mut Self {
        self.value(label, 6, &value.0)
    }

    /// Adds raw bytes.
    pub fn bytes(&mut self, label: &str, value: &[u8]) -> &mut Self {
        self.value(label, 7, value)
    }

    /// Adds a slice of floats by their bits, without copying it.
    pub fn f32s(&mut self, label: &str, values: &[f32]) -> &mut Self {
        self.chunk(label.as_bytes());
        self.0.update([8]);
        self.0.update((values.len() as u64).to_le_bytes());
        let mut buffer = [0_u8; 4096];
        for block in values.chunks(1024) {
            for (slot, value) in buffer.chunks_exact_mut(4).zip(block) {
                slot.copy_from_slice(&value.to_bits().to_le_bytes());
            }
            self.0.update(&buffer[..block.len() * 4]);
        }
        self
    }

    /// Adds that a field is absent, which differs from every value.
    pub fn none(&mut self, label: &str) -> &mut Self {
        self.value(label, 0, &[])
    }

    /// The digest of everything added so far.
    pub fn finish(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
    }
}
