use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::data::{Document, Position, RankCursor, documents_to_bytes};
use crate::files::{ExactF32, ExactF64, Fault, FaultAt, Files};
use crate::hash::Digest;

/// A small checkpoint after `step` steps whose every value depends on `step`.
fn sample(step: u64) -> Checkpoint<'static> {
    let bits = |salt: u32| f32::from_bits(0x7fc0_0000 ^ (step as u32 * 7919 + salt));
    let values = |count: u32| (0..count).map(bits).collect::<Vec<_>>();
    let eval = EvalPoint {
        step,
        settings: Digest::of(b"settings"),
        train_hash: Digest::of(&step.to_le_bytes()),
        values: BTreeMap::from([("val_bpb".to_owned(), ExactF64(1.5))]),
    };
    Checkpoint {
        weights_alone: false,
        params: vec![
            NamedTensor::f32("transformer.wte.weight", &[3, 2], values(6)),
            NamedTensor::f32("x0_lambdas", &[4], values(4)),
            NamedTensor::f64("empty", &[0, 5], vec![]),
        ],
        optimizer: vec![NamedTensor::f64(
            "x0_lambdas.exp_avg",
            &[4],
            vec![0.1, -0.0, f64::NAN, f64::INFINITY],
        )],
        state: TrainState {
            step,
            run_key: Digest::of(b"key"),
            config: Digest::of(b"config"),
            environment_class: "cpu".into(),
            step_losses: (0..step as u32).map(|s| ExactF32(bits(s))).collect(),
            step_seconds: vec![0.25; step as usize],
            evals: vec![eval],
            core: Vec::new(),
            counters: BTreeMap::from([("tokens".to_owned(), step * 4096)]),
            cursor: (step > 0).then(|| cursor(step).into()),
        },
    }
}

fn cursor(step: u64) -> RankCursor {
    let next = Position { epoch: 2, file: 1, group: 0, batch: step as usize };
    let documents = vec![vec![299, 5, 65_535, step as u32].into(), vec![299].into()];
    RankCursor { next, last: Some(Position::START), buffered: documents, cut: vec![(0, 70_000)] }
}

fn store(dir: &Path) -> CheckpointStore {
    CheckpointStore::new(Files::new(), dir.join("checkpoints"))
}

#[test]
fn a_checkpoint_comes_back_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for step in [0, 2, 1_234_567 % 3000] {
        store.save(&sample(step)).unwrap();
        assert_eq!(store.load(step).unwrap(), sample(step));
    }
    assert_eq!(store.steps().unwrap(), [0, 2, 1567]);
}

proptest! {
    #[test]
    fn any_bits_survive_safetensors(
        singles in prop::collection::vec(any::<u32>(), 0..5000),
        doubles in prop::collection::vec(any::<u64>(), 0..50),
    ) {
        let tensors = [
            NamedTensor::f32("a.weight", &[singles.len()], singles.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>()),
            NamedTensor::f64("b \"quoted\"", &[1, doubles.len()], doubles.iter().map(|&b| f64::from_bits(b)).collect::<Vec<_>>()),
        ];
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &tensors).unwrap();
        let mut back = read_safetensors(&bytes).unwrap();
        back.sort_by(|x, y| x.name.cmp(&y.name));
        prop_assert_eq!(&back[..], &tensors[..]);
    }

    #[test]
    fn retention_never_removes_the_newest_or_a_pinned_one(
        steps in prop::collection::btree_set(0_u64..60, 0..12),
        every in 0_u64..8, keep in 0_usize..4, last_step in 0_u64..60, pinned in 0_u64..60, newest in 0_usize..4,
    ) {
        let retention = Retention { newest, every, keep, last_step, pinned: [pinned].into() };
        let steps: Vec<_> = steps.into_iter().collect();
        let gone = surplus(&steps, &retention);
        let left: Vec<_> = steps.iter().copied().filter(|s| !gone.contains(s)).collect();
        let newest = newest.max(1).min(steps.len());
        prop_assert!(left.ends_with(&steps[steps.len() - newest..]));
        prop_assert!(!gone.contains(&pinned));
        prop_assert!(surplus(&left, &retention).is_empty());
        let kept = |s: &u64| *s == last_step || (every > 0 && *s > 0 && s.is_multiple_of(every));
        if keep == 0 {
            prop_assert!(!gone.iter().any(kept));
        } else {
            let rest = &left[..left.len() - newest];
            let rest = rest.iter().filter(|s| kept(s) && **s != pinned).count();
            prop_assert!(rest <= keep);
        }
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let mut out = Vec::new();
    let twice = [NamedTensor::f32("a", &[1], vec![1.0]), NamedTensor::f32("a", &[1], vec![1.0])];
    assert_eq!(write_safetensors(&mut out, &twice).unwrap_err().to_string(), "two tensors are named `a`");
    let misshapen = [NamedTensor::f32("a", &[2, 2], vec![1.0])];
    assert_eq!(
        write_safetensors(&mut out, &misshapen).unwrap_err().to_string(),
        "tensor `a` of shape [2, 2] has 1 values"
    );
}

#[test]
fn the_newest_that_verifies_is_found_and_the_others_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    assert!(store.latest_valid().unwrap().checkpoint.is_none());
    for step in [1, 2, 3, 4] {
        store.save(&sample(step)).unwrap();
    }
    let truncated = store.step_dir(4).join("model.safetensors");
    let bytes = fs::read(&truncated).unwrap();
    fs::write(&truncated, &bytes[..bytes.len() - 1]).unwrap();
    fs::remove_file(store.step_dir(3).join("MANIFEST.json")).unwrap();
    let latest = store.latest_valid().unwrap();
    assert_eq!(latest.checkpoint.unwrap(), sample(2));
    let told: Vec<_> = latest.skipped.iter().map(|s| s.reason.to_string()).collect();
    let place = dir.path().display().to_string();
    insta::assert_snapshot!(told.join("\n").replace(&place, "run"));
    // A fresh save of a damaged step mends it.
    store.save(&sample(4)).unwrap();
    assert_eq!(store.latest_valid().unwrap().checkpoint.unwrap(), sample(4));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.save(&sample(3)).unwrap();
    for name in ["model.safetensors", "optimizer.safetensors", "documents.bin", "state.json", "MANIFEST.json"]
    {
        let path = store.step_dir(3).join(name);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            assert!(store.load(3).is_err(), "bit {at} of {name}");
            if at % 16 == 0 {
                fs::write(&path, &good[..at]).unwrap();
                assert!(store.load(3).is_err(), "{name} cut to {at}");
            }
        }
        fs::remove_file(&path).unwrap();
        let error = store.load(3).unwrap_err();
        assert!(matches!(&error, CheckpointError::Missing { file, .. } if file == name), "{error}");
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(store.load(3).unwrap(), sample(3));
    // A checkpoint under another step's name is not that step's.
    fs::rename(store.step_dir(3), store.step_dir(5)).unwrap();
    assert!(matches!(store.load(5), Err(CheckpointError::Malformed { .. })));
}

#[test]
fn an_older_checkpoint_stays_usable_under_every_fault() {
    let count = Arc::new(FaultAt::once(usize::MAX, Fault::Fail(ErrorKind::Other)));
    let change = |files: Files, dir: &Path| {
        let store = CheckpointStore::new(files, dir.join("checkpoints"));
        store.save(&sample(2))?;
        store.prune(&Retention::default())
    };
    let prepared = || {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path()).save(&sample(1)).unwrap();
        dir
    };
    change(Files::with_faults(count.clone()), prepared().path()).unwrap();
    let mut found = [0; 2];
    for at in 0..count.seen() {
        for fault in [
            FaultAt::once(at, Fault::Fail(ErrorKind::StorageFull)),
            FaultAt::once(at, Fault::Short(100, ErrorKind::StorageFull)),
            FaultAt::kill(at, 0),
            FaultAt::kill(at, 100),
        ] {
            let dir = prepared();
            let outcome = change(Files::with_faults(Arc::new(fault)), dir.path());
            assert!(outcome.is_err(), "step {at}");
            Files::new().recover(dir.path()).unwrap();
            let latest = store(dir.path()).latest_valid().unwrap();
            assert!(latest.skipped.is_empty(), "a torn checkpoint under its name at step {at}");
            let step = latest.checkpoint.expect("an older checkpoint").state.step;
            found[step as usize - 1] += 1;
            change(Files::new(), dir.path()).unwrap();
            assert_eq!(store(dir.path()).steps().unwrap(), [2]);
        }
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
}

#[test]
fn rolling_checkpoints_go_and_kept_ones_stay() {
    let steps = [0, 50, 100, 150, 200, 230];
    let retention = |every, keep| Retention { newest: 1, every, keep, last_step: 300, pinned: [50].into() };
    assert_eq!(surplus(&steps, &retention(100, 0)), [0, 150]);
    assert_eq!(surplus(&steps, &retention(100, 1)), [0, 100, 150]);
    assert_eq!(surplus(&steps, &retention(0, 0)), [0, 100, 150, 200]);
    assert_eq!(surplus(&[200, 300], &retention(0, 1)), [200]);
    assert_eq!(surplus(&[], &retention(0, 1)), [0_u64; 0]);
    let spare = |every, keep| Retention { newest: 2, ..retention(every, keep) };
    assert_eq!(surplus(&steps, &spare(0, 0)), [0, 100, 150]);
    assert_eq!(surplus(&steps, &spare(100, 1)), [0, 100, 150]);
    assert_eq!(surplus(&steps[..4], &spare(100, 1)), [0]);
    assert_eq!(surplus(&[200, 300], &spare(0, 1)), [0_u64; 0]);
}

#[test]
fn another_run_class_or_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.save(&sample(1)).unwrap();
    let checkpoint: Checkpoint<'_> = store.load(1).unwrap();
    checkpoint.check_run(&Digest::of(b"key"), "cpu").unwrap();
    let other = checkpoint.check_run(&Digest::of(b"another key"), "cpu").unwrap_err();
    let class = checkpoint.check_run(&Digest::of(b"key"), "tch/cuda").unwrap_err();
    let skipped = store.latest_valid_where(|c| c.check_run(&Digest::of(b"key"), "tch/cuda"));
    assert!(matches!(skipped.unwrap().skipped[0].reason, CheckpointError::OtherEnvironment { .. }));
    let path = store.step_dir(1).join("MANIFEST.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"format\": 2", "\"format\": 4");
    fs::write(&path, text).unwrap();
    let format = store.load(1).unwrap_err();
    let told = [other, class, format].map(|error| crate::error::Error::from(error).to_string());
    insta::assert_snapshot!(told.join("\n").replace(&dir.path().display().to_string(), "run"));
}

#[test]
fn documents_take_the_room_of_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut checkpoint = sample(1);
    let documents: Vec<Document> = (0..1000).map(|length| vec![32_000; 1 + length % 700].into()).collect();
    let ids: usize = documents.iter().map(|document| document.len()).sum();
    checkpoint.state.cursor = Some(RankCursor { buffered: documents, ..cursor(1) }.into());
    store.save(&checkpoint).unwrap();
    let size = |name: &str| fs::metadata(store.step_dir(1).join(name)).unwrap().len();
    assert_eq!(size("documents.bin"), 8 + 4 * 1000 + 2 * ids as u64);
    assert!(size("state.json") < 2000, "{} bytes", size("state.json"));
    assert_eq!(store.load(1).unwrap(), checkpoint);
}

#[test]
fn documents_that_fit_no_cursor_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let refused = |checkpoint: &Checkpoint<'_>, documents: &[u8]| {
        store.save(checkpoint).unwrap();
        rewrite(&store.step_dir(checkpoint.state.step), "documents.bin", documents);
        store.load(checkpoint.state.step).unwrap_err().to_string()
    };
    let documents = |lengths: &[usize]| {
        documents_to_bytes(&lengths.iter().map(|&length| vec![7; length].into()).collect::<Vec<_>>())
    };
    let told = [
        refused(&sample(0), &documents(&[2])),
        refused(&sample(1), &documents(&[2, 0])),
        refused(&sample(1), b"\x02"),
    ];
    let told = told.map(|error| error.rsplit_once(": ").unwrap().1.to_owned());
    assert_eq!(
        told,
        ["it holds 1 documents of no cursor", "a document of it is empty", "it holds no whole documents"]
    );
}

/// Replaces a file of a checkpoint, its manifest telling the new one's hash.
fn rewrite(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
    let path = dir.join("MANIFEST.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for file in manifest["files"].as_array_mut().unwrap().iter_mut().filter(|file| file["name"] == name) {
        file["bytes"] = bytes.len().into();
        file["sha256"] = Digest::of(bytes).to_string().into();
    }
    fs::write(path, format!("{manifest:#}\n")).unwrap();
}

/// Written by nanorun before the documents had a file of their own.
#[test]
fn a_checkpoint_of_format_1_is_read_and_written_anew_in_format_2() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/format_1/step_000002");
    fs::create_dir_all(store.step_dir(2)).unwrap();
    for entry in fs::read_dir(fixture).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, store.step_dir(2).join(from.file_name().unwrap())).unwrap();
    }
    let old = store.load(2).unwrap();
    let next = Position { batch: 3, ..Position::START };
    let buffered = vec![vec![299, 5, 6, 7].into(), vec![299].into()];
    assert_eq!(
        old.state.cursor,
        Some(RankCursor { next, last: Some(Position::START), buffered, cut: Vec::new() }.into())
    );
    assert_eq!((old.state.step, old.state.step_losses.len()), (2, 2));
    assert_eq!(old.params[0].as_f32().unwrap()[..3], [1.0, 2.0, 3.0]);
    store.save(&old).unwrap();
    assert!(store.step_dir(2).join("documents.bin").is_file());
    assert_eq!(store.load(2).unwrap(), old);
}

#[test]
fn of_a_checkpoint_weights_alone_can_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for step in 1..=3 {
        store.save(&sample(step)).unwrap();
    }
    store.keep_weights(&[2]).unwrap();
    assert_eq!(store.load(2).unwrap(), sample(2));
    for step in [1, 3] {
        let whole = sample(step);
        let state = TrainState { cursor: None, ..whole.state };
        let expected = Checkpoint { params: whole.params, optimizer: Vec::new(), state, weights_alone: true };
        assert_eq!(store.load(step).unwrap(), expected);
        let files = fs::read_dir(store.step_dir(step)).unwrap().count();
        assert_eq!(files, 3, "manifest, weights, state");
    }
    // A second time changes nothing, and damage is found as ever.
    let manifest = store.step_dir(1).join("MANIFEST.json");
    let before = fs::read(&manifest).unwrap();
    store.keep_weights(&[2]).unwrap();
    assert_eq!(fs::read(&manifest).unwrap(), before);
    let model = store.step_dir(1).join("model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&model, bytes).unwrap();
    assert!(matches!(store.load(1), Err(CheckpointError::Hash { .. })));
    store.remove_all(&[2]).unwrap();
    assert_eq!(store.steps().unwrap(), [2]);
}

#[test]
fn letting_go_of_all_but_the_weights_may_fail_anywhere() {
    let written = |dir: &Path| store(dir).save(&sample(4)).unwrap();
    for at in 0.. {
        let mut reached = false;
        for fault in [FaultAt::once(at, Fault::Fail(ErrorKind::Other)), FaultAt::kill(at, 9)] {
            let dir = tempfile::tempdir().unwrap();
            written(dir.path());
            let fault = Arc::new(fault);
            let failing =
                CheckpointStore::new(Files::with_faults(fault.clone()), dir.path().join("checkpoints"));
            let done = failing.keep_weights(&[]);
            reached |= fault.seen() > at;
            Files::new().recover(dir.path()).unwrap();
            // Whole or of weights alone, and the next time the rest goes.
            let left = store(dir.path()).load(4).unwrap();
            assert!(left == sample(4) || left.weights_alone, "{at}: {done:?}");
            store(dir.path()).keep_weights(&[]).unwrap();
            assert_eq!(fs::read_dir(store(dir.path()).step_dir(4)).unwrap().count(), 3, "{at}");
        }
        if !reached {
            assert!(at > 4, "{at}");
            break;
        }
    }
}
