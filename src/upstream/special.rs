//! Upstream's nine special tokens (nanochat/tokenizer.py), in the order of their ids after the merges, and what follows
//! from how many they are.

/// Begins every document.
pub const BOS: &str = "<|bos|>";

/// All nine. Pretraining uses the first; the others render conversations.
pub const SPECIAL_TOKENS: [&str; 9] = [
    BOS,
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
];

/// The smallest BPE vocabulary: all bytes and the special tokens.
pub const MIN_VOCAB_SIZE: usize = 256 + SPECIAL_TOKENS.len();
