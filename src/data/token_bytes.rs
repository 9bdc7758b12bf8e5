//! How many bytes of text each token stands for: what turns nats per token into bits per byte.

use super::config::TokenBytesRule;

/// Bytes of a token under a definition.
pub(super) fn bytes_of(token: &[u8], rule: TokenBytesRule) -> u32 {
    match rule {
        TokenBytesRule::Raw => token.len() as u32,
        // Each maximal invalid stretch decodes to U+FFFD, three bytes in UTF-8.
        TokenBytesRule::Decoded => String::from_utf8_lossy(token).len() as u32,
    }
}
