//! The character tokenizer of the small models: one token a character, in code point order, then one BOS.

use std::collections::BTreeSet;

use super::fast_hash::FastMap;

/// Characters by id.
pub(super) struct CharVocab {
    characters: Vec<char>,
    ids: FastMap<u32, u32>,
}

impl CharVocab {
    /// The vocabulary of these characters.
    pub(super) fn new(characters: BTreeSet<char>) -> Self {
        let characters: Vec<char> = characters.into_iter().collect();
        let ids = characters.iter().zip(0..).map(|(&character, id)| (u32::from(character), id)).collect();
        Self { characters, ids }
    }

    /// The characters by id.
    pub(super) fn characters(&self) -> &[char] {
        &self.characters
    }

    /// Appends the ids of `text` to `out`.
    ///
    /// # Errors
    /// The first character that has no token.
    pub(super) fn encode_into(&self, text: &str, out: &mut Vec<u32>) -> Result<(), char> {
        for character in text.chars() {
            out.push(*self.ids.get(&u32::from(character)).ok_or(character)?);
        }
        Ok(())
    }
}
