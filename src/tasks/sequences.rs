//! Token sequences of an example, and which of their tokens are scored.

use super::example::TaskKind;
use crate::data::Tokenizer;
use crate::error::{Error, Result};

/// One sequence to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    /// BOS first, where it was not cropped.
    pub(super) tokens: Vec<i32>,
    /// The first token that is scored.
    pub(super) start: usize,
}

/// The sequences of an example's prompts: one a choice; of language modelling the one with its continuation. Those longer
/// than `context` keep their last tokens, as upstream has it.
///
/// # Errors
/// Characters that the tokenizer does not know; a continuation whose first token begins before it, or that alone is longer
/// than the context; class `Input`.
pub(super) fn sequences(
    prompts: &[String],
    kind: TaskKind,
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Vec<Sequence>> {
    let encode = |prompt: &String| -> Result<Vec<i32>> {
        let ids = std::iter::once(tokenizer.bos()).chain(tokenizer.encode(prompt)?);
        Ok(ids.map(|id| id as i32).collect())
    };
    let tokens: Vec<Vec<i32>> = prompts.iter().map(encode).collect::<Result<_>>()?;
    let uncropped: Vec<Sequence> = match kind {
        TaskKind::MultipleChoice => {
            let start = common(&tokens, false);
            tokens.into_iter().map(|tokens| Sequence { tokens, start }).collect()
        }
        TaskKind::Schema => {
            let suffix = common(&tokens, true);
            let sequence = |tokens: Vec<i32>| Sequence { start: tokens.len() - suffix, tokens };
            tokens.into_iter().map(sequence).collect()
        }
        TaskKind::LanguageModeling => {
            let [without, with] = <[Vec<i32>; 2]>::try_from(tokens)
                .map_err(|_| Error::internal("language modelling has two prompts"))?;
            let start = without.len();
            if with.len() <= start || with.get(..start) != Some(without.as_slice()) {
                return Err(Error::input(
                    "the tokens of a prompt are not those that it begins with once its \
                                         continuation follows",
                )
                .expected("a continuation that begins with a token of its own")
                .help("the tokenizer does not fit this task, or its continuation_delimiter does not"));
            }
            vec![Sequence { tokens: with, start }]
        }
    };
    uncropped.into_iter().map(|sequence| crop(sequence, context)).collect()
}

/// Tokens that all sequences begin with, or end in.
fn common(sequences: &[Vec<i32>], from_the_end: bool) -> usize {
    let shortest = sequences.iter().map(Vec::len).min().unwrap_or(0);
    let at = |tokens: &Vec<i32>, i: usize| {
        let i = if from_the_end { tokens.len() - 1 - i } else { i };
        tokens.get(i).copied()
    };
    (0..shortest)
        .find(|&i| {
            sequences.iter().any(|tokens| at(tokens, i) != sequences.first().and_then(|first| at(first, i)))
        })
        .unwrap_or(shortest)
}

/// Leaves out tokens in front where there are more than the context has room for.
fn crop(mut sequence: Sequence, context: usize) -> Result<Sequence> {
    let beyond = sequence.tokens.len().saturating_sub(context);
    if beyond == 0 {
        return Ok(sequence);
    }
    // A token is scored from what stands before it.
    let Some(start) = sequence.start.checked_sub(beyond).filter(|&start| start > 0) else {
        let scored = sequence.tokens.len() - sequence.start;
        return Err(Error::input(format!(
            "{scored} tokens of an example are scored, and the context has {context}"
        ))
        .expected("a shorter continuation, or a model of a longer context"));
    };
    sequence.tokens.drain(..beyond);
    Ok(Sequence { start, ..sequence })
}

/// Tokens at the beginning of all sequences that none of them is scored on.
pub(super) fn shared(sequences: &[Sequence]) -> usize {
    let first = sequences.first().map_or(&[][..], |first| &first.tokens);
    let prefix = |other: &Sequence| {
        let same = first.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count();
        same.min(other.start)
    };
    sequences.iter().map(prefix).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_and_ends_in_common() {
        let sequences = [vec![0, 1, 2, 3], vec![0, 1, 9, 3], vec![0, 1, 3]];
        assert_eq!((common(&sequences, false), common(&sequences, true)), (2, 1));
        let same = [vec![0, 1], vec![0, 1]];
        assert_eq!((common(&same, false), common(&same, true)), (2, 2));
        let within = [vec![0, 1], vec![0, 1, 2]];
        assert_eq!((common(&within, false), common(&within, true)), (2, 0));
    }

    #[test]
    fn long_sequences_keep_their_end() {
        let sequence = |start| Sequence { tokens: (0..10).collect(), start };
        assert_eq!(crop(sequence(8), 4).unwrap(), Sequence { tokens: vec![6, 7, 8, 9], start: 2 });
        assert_eq!(crop(sequence(3), 10).unwrap(), sequence(3));
        assert_eq!(crop(sequence(0), 10).unwrap(), sequence(0));
        for (start, context) in [(6, 4), (2, 4), (9, 1)] {
            assert_eq!(crop(sequence(start), context).unwrap_err().class().exit_code(), 2);
        }
    }

    #[test]
    fn what_is_shared_is_not_scored() {
        let sequence = |tokens: &[i32], start| Sequence { tokens: tokens.to_vec(), start };
        assert_eq!(shared(&[sequence(&[0, 1, 2], 2), sequence(&[0, 1, 3], 2)]), 2);
        assert_eq!(shared(&[sequence(&[0, 1, 2], 1), sequence(&[0, 1, 3], 2)]), 1);
        assert_eq!(shared(&[sequence(&[5, 1], 1), sequence(&[6, 1], 1)]), 0);
    }
}
