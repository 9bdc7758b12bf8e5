//! Valid files of every kind.

use std::path::{Path, PathBuf};

use nanorun::internals::data::{Cursor, Position, RankCursor};
use nanorun::internals::files::{ExactF32, ExactF64, Files};
use nanorun::internals::hash::Digest;
use nanorun::internals::record::journal::{Event, Journal};
use nanorun::internals::record::{
    ExperimentDir, HostFacts, LAYOUT, PlanRecord, PlannedRun, RunResult, StepRow, Timings, write_table,
};
use nanorun::internals::tensors::{NamedTensor, write_safetensors};
use nanorun::internals::train::checkpoint::{Checkpoint, EvalPoint, EvalProgress, TrainState};
use polars::prelude::{Column, DataFrame, ParquetWriter};

/// Where a file of the repository is.
pub(crate) fn path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the repository.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a directory and those below it, by name.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The experiments of the repository, and a manifest with everything in it.
pub(crate) fn manifests() -> Vec<Vec<u8>> {
    let experiments = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let mut paths: Vec<PathBuf> =
        experiments.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut seeds: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    seeds.push(file("tests/fixtures/manifests/tiny.toml"));
    seeds
}

/// A shard of our own writing: two row groups, snappy or what polars chooses, nulls nowhere.
pub(crate) fn shard() -> Vec<u8> {
    let texts = ["one", "two", "two", "", "caf\u{e9}", "and so on and on and on"];
    let column = Column::new("text".into(), texts);
    let mut frame = DataFrame::new_infer_height(vec![column]).unwrap();
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).with_row_group_size(Some(4)).finish(&mut frame).unwrap();
    bytes
}

/// A shard of another writer.
pub(crate) fn packed_shard(name: &str) -> Vec<u8> {
    let packed = file(&format!("tests/fixtures/data/shards/{name}.parquet.zst"));
    zstd::decode_all(&*packed).unwrap()
}

pub(crate) fn tensors() -> Vec<Vec<u8>> {
    let write = |tensors: &[NamedTensor<'_>]| {
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, tensors).unwrap();
        bytes
    };
    let all = [
        NamedTensor::f32("transformer.h.0.attn.c_q.weight", &[2, 3], vec![1.0; 6]),
        NamedTensor::f64("scalar", &[], vec![2.0]),
        NamedTensor::i32("ids", &[2, 0, 5], vec![]),
    ];
    vec![write(&[]), write(&all[..1]), write(&all)]
}

/// A checkpoint's directory.
pub(crate) fn checkpoint(dir: &Path) {
    let weights = NamedTensor::f32("transformer.wte.weight", &[2, 2], vec![1.0, 2.0, 3.0, f32::NAN]);
    let moment = NamedTensor::f32("transformer.wte.weight.exp_avg", &[2, 2], vec![0.5; 4]);
    let checkpoint =
        Checkpoint { params: vec![weights], optimizer: vec![moment], state: state(), weights_alone: false };
    checkpoint.write(&Files::new(), dir).unwrap();
}

fn state() -> TrainState {
    TrainState {
        step: 2,
        run_key: Digest::of(b"key"),
        config: Digest::of(b"config"),
        environment_class: "cpu".into(),
        step_losses: vec![ExactF32(5.5), ExactF32(5.25)],
        step_seconds: vec![0.5, 0.25],
        evals: evals(),
        core: Vec::new(),
        counters: [("tokens".to_owned(), 256)].into(),
        cursor: Some(cursor()),
    }
}

fn cursor() -> Cursor {
    let next = Position { batch: 3, ..Position::START };
    let buffered = vec![vec![299, 5, 6, 7].into(), vec![299].into()];
    RankCursor { next, last: Some(Position::START), buffered, cut: Vec::new() }.into()
}

/// An evaluation under way.
pub(crate) fn evaluation() -> EvalProgress {
    let digest = Digest::of(b"train");
    let mut progress = EvalProgress::begin(2, Digest::of(b"settings"), digest, "cpu".into());
    progress.sums.add(&[0.1, 2.5], &[1, 0], &[1, 3]);
    (progress.batches, progress.cursor) = (7, Some(cursor()));
    progress
}

fn evals() -> Vec<EvalPoint> {
    vec![EvalPoint {
        step: 2,
        settings: Digest::of(b"settings"),
        train_hash: Digest::of(b"train"),
        values: [("val_bpb".to_owned(), ExactF64(2.5))].into(),
    }]
}

fn result() -> RunResult {
    RunResult::new(
        Digest::of(b"key"),
        "cpu".into(),
        1,
        Digest::of(b"train"),
        vec![ExactF32(5.5), ExactF32(5.25)],
        evals(),
        Timings::default(),
        HostFacts::default(),
    )
    .unwrap()
}

/// A results directory with one finished run.
pub(crate) fn results(dir: &ExperimentDir) {
    let files = Files::new();
    files.create_dir_all(dir.path()).unwrap();
    let result = result();
    let run = PlannedRun {
        data: None,
        arm: "schedule.warmdown=\"sqrt\"".into(),
        seed: 1,
        key: result.run_key,
        steps: 2,
        evaluation: result.evaluation(),
        vocab_size: Some(512),
        content: Some(Digest::of(b"content")),
        cell: [("schedule.warmdown".to_owned(), toml::Value::from("sqrt"))].into(),
    };
    PlanRecord {
        layout: LAYOUT,
        directory: Some("/home/ada".into()),
        name: "ci".into(),
        question: Some("Does it?".into()),
        hypothesis: None,
        manifest: "ci.toml".into(),
        profile: None,
        sets: vec!["budget.steps=2".into()],
        env: [("NANORUN_RUN__SEED".to_owned(), "1".to_owned())].into(),
        only: Vec::new(),
        varied: Vec::new(),
        no_share: false,
        nanorun: "0.1.0".into(),
        control: Some("base".into()),
        runs: vec![run],
    }
    .write(&files, dir)
    .unwrap();
    let run = dir.run(&result.run_key).attempt(1);
    files.create_dir_all(run.path()).unwrap();
    result.write(&files, &run.result()).unwrap();
    let journal = Journal::new(files.clone(), run.journal());
    journal.add(Event::Resumed { step: 1, host: "here".into(), conditions: None }).unwrap();
    journal
        .add(Event::Evaluated {
            step: 2,
            values: [("val_bpb".into(), 2.5)].into(),
            eval_hash: result.eval_hash,
            seconds: Some(0.25),
        })
        .unwrap();
    journal.add(Event::Finished { result_hash: result.result_hash }).unwrap();
    write_table(&files, &dir.file("steps.parquet"), &steps(&result.run_key)).unwrap();
}

/// A run's steps.
fn steps(run_key: &Digest) -> [StepRow; 2] {
    let row = |step: u64| StepRow {
        arm: "schedule.warmdown=\"sqrt\"".into(),
        seed: 1,
        run_key: run_key.to_string(),
        step,
        loss: 5.5 - step as f32 / 4.0,
        lr_multiplier: 1.0,
        ..StepRow::default()
    };
    [row(0), row(1)]
}
