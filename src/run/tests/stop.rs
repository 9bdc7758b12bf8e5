//! Stopped inside a step, an evaluation, an op: what was begun is dropped whole.

use crate::ops::SequenceShape;
use crate::run::engine::engine;
use crate::run::single::Outcome;
use crate::run::task::Task;
use crate::run::tests::{Attempt, Lab, assert_same, small};
use crate::stop::{StopFlag, is_stop};
use crate::train::checkpoint::Checkpoint;
use crate::train::engine::{Engine, MicroBatch};

/// Bits of weights, optimizer state and gradients.
fn bits(engine: &dyn Engine) -> Vec<(String, Vec<u32>)> {
    let all = [engine.parameters().unwrap(), engine.optimizer_state().unwrap(), engine.gradients().unwrap()];
    let each = all.into_iter().flatten();
    each.map(|tensor| (tensor.name, tensor.values.wide().iter().map(|value| value.to_bits()).collect()))
        .collect()
}

/// A task's engine after one step, and a micro-batch for the next.
fn begun(lab: &Lab, task: &Task) -> (Box<dyn Engine>, Vec<i32>, Vec<i32>, SequenceShape) {
    let rows = lab.library.rows(&task.config).unwrap();
    let batch = rows.train(None).unwrap().next_batch().unwrap();
    let sequence = SequenceShape { batch: batch.rows, len: batch.len };
    let mut engine = engine(&task.config, 2).unwrap();
    step(engine.as_mut(), task, &batch.inputs, &batch.targets, sequence).unwrap();
    (engine, batch.inputs, batch.targets, sequence)
}

fn step(
    engine: &mut dyn Engine,
    task: &Task,
    inputs: &[i32],
    targets: &[i32],
    sequence: SequenceShape,
) -> crate::error::Result<()> {
    let batch = MicroBatch { inputs, targets, sequence };
    engine.accumulate(&batch, 0.01)?.read()?;
    engine.accumulate(&batch, 0.01)?.read()?;
    engine.update(&task.config.schedule.step_values(0))
}

#[test]
fn a_stopped_step_leaves_every_bit_as_it_was() {
    let lab = Lab::new();
    let scalar = lab.task(&small("microgpt"), &["run.backend=\"scalar\""]);
    let small = lab.task(&small("microgpt"), &[]);
    for (task, least) in [(lab.gpt(2, &["model.depth=3"]), 20), (small, 10), (scalar, 2)] {
        let (mut undisturbed, inputs, targets, sequence) = begun(&lab, &task);
        let before = bits(undisturbed.as_ref());
        step(undisturbed.as_mut(), &task, &inputs, &targets, sequence).unwrap();
        let after = bits(undisturbed.as_ref());

        let (mut engine, ..) = begun(&lab, &task);
        let (mut stops, mut asks) = (0, 0);
        loop {
            engine.stop_on(&StopFlag::after(asks));
            let Err(error) = step(engine.as_mut(), &task, &inputs, &targets, sequence) else { break };
            assert!(is_stop(&error), "{asks}: {error}");
            engine.drop_gradients().unwrap();
            assert!(bits(engine.as_ref()) == before, "after {asks} questions: something moved");
            stops += 1;
            asks += 1 + asks / 16;
        }
        assert!(stops >= least, "{stops} stops in {asks} questions");
        assert!(bits(engine.as_ref()) == after, "the step that was not stopped is another one");
    }
}

/// An op of minutes is over at once, however many tasks it has left.
#[test]
fn the_tasks_of_an_op_are_asked() {
    let lab = Lab::new();
    let task = lab.gpt(2, &["model.depth=1"]);
    let (mut engine, inputs, targets, sequence) = begun(&lab, &task);
    let batch = MicroBatch { inputs: &inputs, targets: &targets, sequence };
    let count = |engine: &mut dyn Engine| {
        let mut most = 1;
        loop {
            engine.stop_on(&StopFlag::after(most));
            let Err(error) = engine.losses(&batch) else { return most };
            assert!(is_stop(&error), "{error}");
            most += 1;
        }
    };
    // One block, and one question after all: the rest are asked between tasks.
    assert!(count(engine.as_mut()) > 20);
}

#[test]
fn decoding_and_logits_stop() {
    let lab = Lab::new();
    let task = lab.gpt(2, &[]);
    let (mut engine, inputs, targets, sequence) = begun(&lab, &task);
    let flag = StopFlag::default();
    engine.stop_on(&flag);
    engine.start_decoding(8).unwrap();
    engine.decode(&[1, 2]).unwrap();
    flag.raise();
    assert!(is_stop(&engine.decode(&[3]).unwrap_err()));
    assert!(is_stop(
        &engine.logits(&MicroBatch { inputs: &inputs, targets: &targets, sequence }).unwrap_err()
    ));
}

#[test]
fn a_run_stopped_inside_an_op_carries_on_exactly() {
    let lab = Lab::new();
    let scalar = lab.task(&small("bigram"), &["run.backend=\"scalar\""]);
    for task in [lab.gpt(4, &["model.depth=2", "train.total_batch_size=256"]), scalar] {
        let expected = lab.undisturbed(&task);
        let (mut asks, mut stops, mut dropped) = (0, 0, 0);
        loop {
            let place = tempfile::tempdir().unwrap();
            let attempt = Attempt { flag: StopFlag::after(asks), ..Attempt::at(place.path()) };
            let (outcome, stopped) = lab.train(&task, &attempt);
            let what = format!("stopped after {asks} questions");
            match outcome.unwrap() {
                Outcome::Finished(result) => {
                    assert_same(&result, &expected, &what);
                    break;
                }
                Outcome::Interrupted { step } => {
                    let checkpoint: Checkpoint<'_> = attempt.store().load(step).unwrap();
                    assert_eq!(checkpoint.state.step_losses.len() as u64, step, "{what}");
                    let told = stopped.notes.iter().filter(|note| note.starts_with("stopping; ")).count();
                    assert_eq!(told, 1, "{what}: {:?}", stopped.notes);
                    let (result, seen) = lab.finish(&task, &Attempt::at(place.path()));
                    assert_eq!(seen.steps, task.steps() - step, "{what}");
                    assert_same(&result, &expected, &what);
                    stops += 1;
                    dropped += u64::from(stopped.saved.last() == Some(&step) && step % 2 == 1);
                }
                other => panic!("{what}: {other:?}"),
            }
            asks += 1 + asks / 4;
        }
        assert!(stops >= 8 && dropped >= 1, "{stops} stops, {dropped} in a step");
    }
}

/// A loader that is stopped hands out the very rows again.
#[test]
fn dropped_rows_are_read_again() {
    let lab = Lab::new();
    let task = lab.gpt(4, &[]);
    let rows = lab.library.rows(&task.config).unwrap();
    let mut source = rows.train(None).unwrap();
    let first = source.next_batch().unwrap();
    let second = source.next_batch().unwrap();
    drop(source);
    let mut again = rows.train(Some(first.cursor_after.clone())).unwrap();
    assert_eq!(again.next_batch().unwrap(), second);
}
