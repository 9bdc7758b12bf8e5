//! What an evaluation is: everything besides the weights that decides its values. Numbers are compared only where it is
//! the same.

use super::run_config::{DocumentSplit, Packing, RunConfig, TokenBytesRule, TokenizerChoice};
use crate::hash::{Canonical, Digest};
use crate::text::word;

/// What nanorun evaluates.
pub const VAL_BPB: &str = "val_bpb";
/// Mean validation loss, nats a token.
pub const VAL_LOSS: &str = "val_loss";
/// Mean loss of the last step, nats a token.
pub const TRAIN_LOSS: &str = "train_loss";

/// The CORE metric: mean over tasks of how far a model is from guessing to all right.
pub const CORE: &str = "core";

/// Whether more of a metric is better.
pub fn higher_is_better(metric: &str) -> bool {
    metric == CORE
}

/// Definition of a run's evaluations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The split, by name.
    pub split: &'static str,
    /// Hash over the contents of shards and tokenizer; none while they are not here.
    pub content: Option<Digest>,
    /// Where the text is from, as the manifest names it.
    pub shards: Vec<String>,
    /// How text files are divided.
    pub document: DocumentSplit,
    /// How documents become rows.
    pub packing: Packing,
    /// Tokens asked for; whole batches of them are counted.
    pub tokens: u64,
    /// Rows of a batch.
    pub device_batch_size: u64,
    /// Tokens of a row: how much a token sees at most.
    pub sequence_len: u64,
    /// Ranks that the rows are divided over.
    pub ranks: u64,
    /// What counts as a token's bytes.
    pub token_bytes: TokenBytesRule,
    /// The tokenizer, as the manifest names it.
    pub tokenizer: TokenizerChoice,
    /// Tokens that it knows.
    pub vocab_size: u64,
    /// Hash of the bundle that CORE is measured on, and of how much of it; none where it is not, or not here.
    pub core: Option<Digest>,
}

/// In what two evaluations differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// The manifest's field.
    pub field: &'static str,
    /// What it is in the one.
    pub ours: String,
    /// And in the other.
    pub theirs: String,
}

/// Fields by which evaluations can differ: what `scorecard.across` may name.
pub const FIELDS: [&str; 9] = [
    "eval.tokens",
    "run.ranks",
    "model.sequence_len",
    "data.token_bytes",
    "data.tokenizer",
    "data.packing",
    "data.document",
    "data.shards",
    "eval.core.bundle",
];

impl Evaluation {
    /// Of a run.
    pub fn of(config: &RunConfig) -> Self {
        Self {
            split: "val",
            content: config.data.content,
            shards: config.data.shards.clone(),
            document: config.data.document,
            packing: config.data.packing,
            tokens: config.eval.tokens,
            device_batch_size: config.batch.device_batch_size as u64,
            sequence_len: config.model.sequence_len() as u64,
            ranks: config.row_order.ranks as u64,
            token_bytes: config.data.token_bytes,
            tokenizer: config.data.tokenizer.clone(),
            vocab_size: config.model.vocab_size() as u64,
            core: config.eval.core.as_ref().and_then(|core| core.sha256),
        }
    }

    /// Tokens that it counts: whole batches, as many of each rank.
    pub fn counted_tokens(&self) -> u64 {
        let batch = self.device_batch_size * self.sequence_len * self.ranks;
        self.tokens.checked_div(batch).unwrap_or(0) * batch
    }

    /// Its digest, which eval hashes are made with. The bytes are a promise: what they leave out is in the run key.
    pub fn digest(&self) -> Digest {
        let mut hash = Canonical::new("nanorun.eval-settings/1");
        hash.u64("tokens", self.tokens)
            .u64("device_batch_size", self.device_batch_size)
            .u64("sequence_len", self.sequence_len)
            .str("split", self.split)
            .str(
                "token_bytes",
                match self.token_bytes {
                    TokenBytesRule::Decoded => "Decoded",
                    TokenBytesRule::Raw => "Raw",
                },
            );
        match &self.content {
            Some(content) => hash.digest("data", content),
            None => hash.none("data"),
        };
        if self.ranks != 1 {
            hash.u64("ranks", self.ranks);
        }
        hash.finish()
    }

    /// What has to be equal for two values of `metric` to be of one definition: the field, and what it is here. The
    /// device batch matters through the tokens that are counted alone.
    pub fn definition(&self, metric: &str) -> Vec<(&'static str, String)> {
        if metric == CORE {
            // The same examples to all models, whatever they were trained and validated on.
            let bundle = self.core.map_or_else(|| "none".to_owned(), |digest| format!("sha256 {digest}"));
            return vec![("eval.core.bundle", bundle)];
        }
        let tokenizer = match &self.tokenizer {
            TokenizerChoice::Char => format!("char, {} tokens", self.vocab_size),
            TokenizerChoice::Path(path) => format!("{path}, {} tokens", self.vocab_size),
            TokenizerChoice::Train { vocab_size } => format!("trained, {vocab_size} tokens"),
        };
        let of = |field| match field {
            "eval.tokens" => self.counted_tokens().to_string(),
            "run.ranks" => self.ranks.to_string(),
            "model.sequence_len" => self.sequence_len.to_string(),
            "data.token_bytes" => word(&self.token_bytes),
            "data.tokenizer" => tokenizer.clone(),
            "data.packing" => word(&self.packing),
            "data.document" => word(&self.document),
            _ => self.shards.join(", "),
        };
        let matters = |field: &&'static str| match (metric, *field) {
            // A loss a token knows no bytes, and one of training no validation.
            (VAL_LOSS | TRAIN_LOSS, "data.token_bytes") | (TRAIN_LOSS, "eval.tokens") => false,
            _ => true,
        };
        let fields = FIELDS.into_iter().filter(|field| *field != "eval.core.bundle");
        fields.filter(matters).map(|field| (field, of(field))).collect()
    }

    /// In what this and `other` measure `metric` differently; nothing where they are comparable.
    pub fn departures(&self, other: &Self, metric: &str) -> Vec<Departure> {
        let both = self.definition(metric).into_iter().zip(other.definition(metric));
        both.filter(|((_, ours), (_, theirs))| ours != theirs)
            .map(|((field, ours), (_, theirs))| Departure { field, ours, theirs })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation() -> Evaluation {
        Evaluation {
            split: "val",
            content: Some(Digest::of(b"content")),
            shards: vec!["embedded".into()],
            document: DocumentSplit::Block,
            packing: Packing::BestFitBos,
            tokens: 1000,
            device_batch_size: 2,
            sequence_len: 64,
            ranks: 1,
            token_bytes: TokenBytesRule::Decoded,
            tokenizer: TokenizerChoice::Train { vocab_size: 512 },
            vocab_size: 512,
            core: Some(Digest::of(b"bundle")),
        }
    }

    #[test]
    fn the_device_batch_matters_through_the_rows_it_counts() {
        let one = evaluation();
        assert_eq!(one.counted_tokens(), 896);
        let same = Evaluation { device_batch_size: 7, ..evaluation() };
        assert_eq!(same.counted_tokens(), 896);
        assert_eq!(one.departures(&same, VAL_BPB), []);
        let fewer = Evaluation { device_batch_size: 4, ..evaluation() };
        assert_eq!(fewer.counted_tokens(), 768);
        let expected = Departure { field: "eval.tokens", ours: "896".into(), theirs: "768".into() };
        assert_eq!(one.departures(&fewer, VAL_BPB), [expected]);
        assert_eq!(Evaluation { device_batch_size: 0, ..evaluation() }.counted_tokens(), 0);
    }

    #[test]
    fn every_field_of_the_definition_is_told_by_name() {
        let others = [
            ("eval.tokens", Evaluation { tokens: 2000, ..evaluation() }),
            // As many tokens: 7 batches of 2 rows, and 7 of one row on each of 2.
            ("run.ranks", Evaluation { ranks: 2, device_batch_size: 1, ..evaluation() }),
            ("data.token_bytes", Evaluation { token_bytes: TokenBytesRule::Raw, ..evaluation() }),
            ("data.tokenizer", Evaluation { tokenizer: TokenizerChoice::Char, ..evaluation() }),
            ("data.packing", Evaluation { packing: Packing::Document, ..evaluation() }),
            ("data.document", Evaluation { document: DocumentSplit::Line, ..evaluation() }),
            ("data.shards", Evaluation { shards: vec!["other".into()], ..evaluation() }),
        ];
        for (field, other) in others {
            let found = evaluation().departures(&other, VAL_BPB);
            assert_eq!(found.iter().map(|departure| departure.field).collect::<Vec<_>>(), [field]);
        }
        let bundle = Evaluation { core: None, tokens: 2000, ..evaluation() };
        let departed = evaluation().departures(&bundle, CORE);
        assert_eq!(
            departed.iter().map(|departure| departure.field).collect::<Vec<_>>(),
            ["eval.core.bundle"]
        );
        let raw = Evaluation { token_bytes: TokenBytesRule::Raw, tokens: 2000, ..evaluation() };
        assert_eq!(evaluation().departures(&raw, VAL_LOSS).len(), 1);
        assert_eq!(evaluation().departures(&raw, TRAIN_LOSS), []);
    }
}
