//! What guards an evaluation, for every model kind on every backend: the checkpoint that is on disk before it begins,
//! and the memory-drift guard. And what guards a step: its losses are looked at before the weights change.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use nanorun::internals::data::{Batch, Cache, Cursor, LoaderBytes};
use nanorun::internals::error::{Error, Result};
use nanorun::internals::files::Files;
use nanorun::internals::model::bigram::Bigram;
use nanorun::internals::model::config::ModelConfig;
use nanorun::internals::model::gpt::Gpt;
use nanorun::internals::model::init::InitialValues;
use nanorun::internals::model::microgpt::Microgpt;
use nanorun::internals::model::network::{Inputs, Network};
use nanorun::internals::model::param::{ParamSpec, Params};
use nanorun::internals::ops::{ForwardOps, Losses, OpResult, TrainOps};
use nanorun::internals::optim::config::StepValues;
use nanorun::internals::plan::key::Links;
use nanorun::internals::plan::run_config::{BackendChoice, BackendKind, RunConfig};
use nanorun::internals::precision::Precision;
use nanorun::internals::run::engine::engine_from;
use nanorun::internals::run::library::Library;
use nanorun::internals::stop::StopFlag;
use nanorun::internals::train::checkpoint::CheckpointStore;
use nanorun::internals::train::engine::{Engine, MicroBatch, NamedTensor};
use nanorun::internals::train::observer::{Event, Observer, Origin};
use nanorun::internals::train::ops_engine::OpsEngine;
use nanorun::internals::train::rows::{BatchSource, Rows};
use nanorun::internals::train::scalar_engine::ScalarEngine;
use nanorun::internals::train::session::{Ending, Finished, Session};

use crate::backends::{BACKENDS, config};

/// `eval.max_drift_bytes`. libtorch's count is the whole process's, in which other tests compute small things.
const LIMIT: usize = 1 << 22;
/// Held by whoever leaks, or watches that nothing does: what one leaks, another one's guard would find in that count.
static LEAKS: Mutex<()> = Mutex::new(());
/// f32s that a leaky evaluation batch never gives back: twice the limit.
const LEAKED: usize = LIMIT / 2;
/// Steps of a run; it is evaluated before the first, after the second and at the end.
const STEPS: u64 = 3;
/// Batches of an evaluation.
const EVAL_BATCHES: usize = 3;

fn manifest(kind: &str) -> RunConfig {
    let sizes = match kind {
        "gpt" => "depth = 2\naspect_ratio = 24\nhead_dim = 12\n",
        _ => "",
    };
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt");
    config(&format!(
        "name = \"guards\"\n[upstream]\ncommit = \"92d63d4\"\n[run]\nseed = 1\nbackend = \"cpu\"\n\
         [budget]\nsteps = {STEPS}\n[schedule]\nwarmdown = \"linear\"\n\
         [model]\nkind = \"{kind}\"\nsequence_len = 8\n{sizes}\
         [train]\ndevice_batch_size = 2\ntotal_batch_size = 16\n\
         [data]\nshards = \"{}\"\ndocument = \"line\"\ntokenizer = \"char\"\nvocab_size = 27\n\
         [eval]\nevery = 2\ntokens = {}\nmax_drift_bytes = {LIMIT}\n",
        names.display(),
        16 * EVAL_BATCHES
    ))
}

/// A model that forgets some memory of its backend in every forward that keeps nothing for a backward.
struct Leaky<M> {
    model: M,
    leaks: bool,
}

impl<M: Network> Network for Leaky<M> {
    type Tables<B: ForwardOps> = M::Tables<B>;
    type Cache<B: ForwardOps> = M::Cache<B>;

    fn specs(&self) -> &[ParamSpec] {
        self.model.specs()
    }
    fn sequence_len(&self) -> usize {
        self.model.sequence_len()
    }
    fn tables<B: ForwardOps>(&self, ops: &B, len: usize) -> OpResult<Self::Tables<B>> {
        self.model.tables(ops, len)
    }
    fn losses<B: ForwardOps>(
        &self,
        inputs: &Inputs<'_, B, Self::Tables<B>>,
        targets: &B::Tokens,
    ) -> OpResult<Vec<f32>> {
        if self.leaks {
            std::mem::forget(inputs.ops.zeros(64, LEAKED / 64)?);
        }
        self.model.losses(inputs, targets)
    }
    fn logits<B: ForwardOps>(&self, inputs: &Inputs<'_, B, Self::Tables<B>>) -> OpResult<B::Tensor> {
        self.model.logits(inputs)
    }
    fn loss_and_grads<B: TrainOps>(
        &self,
        inputs: &Inputs<'_, B, Self::Tables<B>>,
        targets: &B::Tokens,
        grad_scale: f32,
        grads: &mut Params<B::Grad>,
    ) -> OpResult<Losses> {
        self.model.loss_and_grads(inputs, targets, grad_scale, grads)
    }
    fn cache<B: ForwardOps>(&self, ops: &B, capacity: usize) -> OpResult<Self::Cache<B>> {
        self.model.cache(ops, capacity)
    }
    fn fork<B: ForwardOps>(
        &self,
        ops: &B,
        cache: &Self::Cache<B>,
        sequences: &[usize],
    ) -> OpResult<Self::Cache<B>> {
        self.model.fork(ops, cache, sequences)
    }
    fn decode<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        cache: &mut Self::Cache<B>,
        ids: &[i32],
        last: usize,
    ) -> OpResult<B::Tensor> {
        self.model.decode(ops, weights, cache, ids, last)
    }
}

fn engine(config: &RunConfig, kind: BackendKind, leaks: bool) -> Box<dyn Engine> {
    match &config.model {
        ModelConfig::Gpt(model) => on(Gpt::new(model.clone()).unwrap(), config, kind, leaks),
        ModelConfig::Microgpt(model) => on(Microgpt::new(model.clone()).unwrap(), config, kind, leaks),
        ModelConfig::Bigram(model) => on(Bigram::new(model.clone()).unwrap(), config, kind, leaks),
    }
}

fn on<M: Network + 'static>(model: M, config: &RunConfig, kind: BackendKind, leaks: bool) -> Box<dyn Engine> {
    let (values, optimizer) = (InitialValues::Drawn { seed: config.seed }, &config.optimizer);
    let model = Leaky { model, leaks };
    match kind {
        BackendKind::Scalar => {
            let all = values.all(model.specs()).unwrap();
            Box::new(ScalarEngine::new(model, optimizer, &all).unwrap())
        }
        BackendKind::Cpu => {
            let ops = nanorun::internals::backend::cpu::CpuBackend::new(2).unwrap();
            Box::new(OpsEngine::new(model, ops, optimizer, values).unwrap())
        }
        #[cfg(feature = "tch")]
        BackendKind::Tch => {
            use nanorun::internals::backend::torch::{TorchBackend, device::TorchDevice};
            let ops = TorchBackend::new(TorchDevice::Cpu, nanorun::internals::precision::Precision::F32, 2)
                .unwrap();
            Box::new(OpsEngine::new(model, ops, optimizer, values).unwrap())
        }
        #[cfg(not(feature = "tch"))]
        BackendKind::Tch => unreachable!("not built"),
    }
}

/// Looks at the disk whenever losses without gradients are asked for, as only evaluations and their checks do: a
/// verified checkpoint of the very weights that are evaluated must be there. And writes down what a step does.
struct Witness {
    engine: Box<dyn Engine>,
    store: CheckpointStore,
    steps: u64,
    looked: usize,
    /// The step whose losses are told to be not finite.
    diverges: Option<u64>,
    done: Rc<RefCell<Vec<&'static str>>>,
}

impl Witness {
    fn look(&mut self) -> Result<()> {
        self.looked += 1;
        let found = self.store.load(self.steps);
        let found =
            found.map_err(|error| Error::run("no checkpoint before the evaluation").because(error))?;
        let weights = self.engine.parameters()?;
        for (on_disk, weight) in found.params.iter().zip(&weights) {
            if on_disk.as_f32() != Some(&*weight.values.wide()) {
                return Err(Error::run(format!("the checkpoint holds another `{}`", weight.name)));
            }
        }
        if found.params.len() == weights.len() { Ok(()) } else { Err(Error::run("parameters are missing")) }
    }
}

impl Engine for Witness {
    fn stop_on(&mut self, stop: &StopFlag) {
        self.engine.stop_on(stop);
    }
    fn drop_gradients(&mut self) -> Result<()> {
        self.engine.drop_gradients()
    }
    fn losses(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
        self.look()?;
        self.engine.losses(batch)
    }
    fn update(&mut self, values: &StepValues) -> Result<()> {
        self.steps += 1;
        self.done.borrow_mut().push("update");
        self.engine.update(values)
    }
    fn specs(&self) -> &[ParamSpec] {
        self.engine.specs()
    }
    fn accumulate(&mut self, batch: &MicroBatch<'_>, grad_scale: f32) -> Result<Losses<Error>> {
        self.done.borrow_mut().push("accumulate");
        let losses = self.engine.accumulate(batch, grad_scale)?;
        let (done, diverges) = (Rc::clone(&self.done), self.diverges == Some(self.steps));
        Ok(Losses::on_device(move || {
            done.borrow_mut().push("read");
            let mut losses = losses.read()?;
            losses.iter_mut().filter(|_| diverges).for_each(|loss| *loss = f32::NAN);
            Ok(losses)
        }))
    }
    fn logits(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
        self.engine.logits(batch)
    }
    fn gradients(&self) -> Result<Vec<NamedTensor<'_>>> {
        self.engine.gradients()
    }
    fn parameters(&self) -> Result<Vec<NamedTensor<'_>>> {
        self.engine.parameters()
    }
    fn optimizer_state(&self) -> Result<Vec<NamedTensor<'_>>> {
        self.engine.optimizer_state()
    }
    fn restore(
        &mut self,
        steps: u64,
        parameters: &[NamedTensor<'_>],
        optimizer: &[NamedTensor<'_>],
    ) -> Result<()> {
        self.steps = steps;
        self.engine.restore(steps, parameters, optimizer)
    }
    fn start_decoding(&mut self, capacity: usize) -> Result<()> {
        self.engine.start_decoding(capacity)
    }
    fn decode_last(&mut self, ids: &[i32], last: usize) -> Result<Vec<f32>> {
        self.engine.decode_last(ids, last)
    }
    fn live_bytes(&self) -> u64 {
        self.engine.live_bytes()
    }
    fn environment_class(&self) -> String {
        self.engine.environment_class()
    }
}

/// Writes down when checkpoints and evaluations begin and end.
#[derive(Default)]
struct Log(Vec<String>);

impl Observer for Log {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Saved { step } => self.0.push(format!("saved {step}")),
            Event::Evaluating { step } => self.0.push(format!("evaluating {step}")),
            Event::Evaluated(done, _) => self.0.push(format!("evaluated {}", done.step)),
            Event::Note(note) => self.0.push((*note).to_owned()),
            _ => {}
        }
    }
}

/// A whole run whose checkpoints go to `written` and are looked for in `read`.
fn run(
    config: &RunConfig,
    engine: Box<dyn Engine>,
    written: &Path,
    read: &Path,
) -> (Result<Ending>, Vec<String>, usize) {
    let mut witness = Witness {
        engine,
        store: CheckpointStore::new(Files::new(), read),
        steps: 0,
        looked: 0,
        diverges: None,
        done: Rc::default(),
    };
    let (ending, log) = session(config, &mut witness, written);
    (ending, log, witness.looked)
}

fn session(config: &RunConfig, witness: &mut Witness, written: &Path) -> (Result<Ending>, Vec<String>) {
    let library = Library::new(Cache::disabled());
    let rows = library.rows(config).unwrap();
    session_over(config, rows.as_ref(), witness, written)
}

/// From the newest checkpoint, as a restart does.
fn session_over(
    config: &RunConfig,
    rows: &dyn Rows,
    engine: &mut dyn Engine,
    written: &Path,
) -> (Result<Ending>, Vec<String>) {
    let links = Links::of(config);
    let store = CheckpointStore::new(Files::new(), written);
    let start = store.latest_valid().unwrap().checkpoint.map(|found| (found, Origin::Checkpoint));
    let mut log = Log::default();
    let mut session = Session {
        core: None,
        config,
        keys: links.cursor(config),
        rows,
        store: &store,
        forks: &[],
        observer: &mut log,
        stop: &|| false,
        alone: false,
        clock: &nanorun::internals::files::now,
    };
    let ending = session.run(engine, start);
    (ending, log.0)
}

/// To read a loss is to wait for the device: once a step, when all of its micro-batches are under way.
#[test]
fn losses_are_read_last_in_a_step_but_before_the_update() {
    let _alone = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut config = manifest("bigram");
    config.batch.grad_accum_steps = 3;
    for &backend in BACKENDS {
        let place = tempfile::tempdir().unwrap();
        let mut witness = Witness {
            engine: engine(&config, backend, false),
            store: CheckpointStore::new(Files::new(), place.path()),
            steps: 0,
            looked: 0,
            diverges: Some(1),
            done: Rc::default(),
        };
        let (ending, _) = session(&config, &mut witness, place.path());
        let Ok(Ending::Diverged { state, metric: "loss", last_good: Some(0), .. }) = ending else {
            panic!("{ending:?}")
        };
        assert_eq!(state.step, 1);
        let losses = ["accumulate", "accumulate", "accumulate", "read", "read", "read"];
        let expected: Vec<_> = losses.into_iter().chain(["update"]).chain(losses).collect();
        assert_eq!(*witness.done.borrow(), expected, "{backend:?}");
    }
}

#[test]
fn every_evaluation_is_guarded_on_every_backend() {
    let _alone = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
    for kind in ["gpt", "microgpt", "bigram"] {
        let config = manifest(kind);
        for &backend in BACKENDS {
            let what = format!("{kind} on {backend:?}");
            let place = tempfile::tempdir().unwrap();
            let dir = |name: &str| place.path().join(name);

            // Sound: every evaluation found its checkpoint, and the guard kept still.
            let sound = engine(&config, backend, false);
            let (ending, log, looked) = run(&config, sound, &dir("sound"), &dir("sound"));
            assert!(matches!(ending, Ok(Ending::Finished(_))), "{what}: {ending:?}");
            let expected = [
                "saved 0",
                "evaluating 0",
                "evaluated 0",
                "saved 2",
                "evaluating 2",
                "evaluated 2",
                "saved 3",
                "evaluating 3",
                "evaluated 3",
            ];
            assert_eq!(log, expected, "{what}");
            assert!(looked >= 3 * EVAL_BATCHES, "{what}: looked {looked} times");

            // Without a checkpoint where it is looked for, the witness speaks up: it does look.
            let (ending, ..) = run(&config, engine(&config, backend, false), &dir("here"), &dir("there"));
            assert_eq!(ending.unwrap_err().what(), "no checkpoint before the evaluation", "{what}");

            // A leak: the guard fires in the first evaluation, whose checkpoint is on disk.
            let leaky = engine(&config, backend, true);
            let (ending, log, _) = run(&config, leaky, &dir("leaky"), &dir("leaky"));
            let error = ending.expect_err(&what);
            assert_eq!(error.class().exit_code(), 3, "{what}: {error}");
            assert_eq!(error.key_path(), Some("eval.max_drift_bytes"), "{what}: {error}");
            assert!(error.what().starts_with("the evaluation leaves "), "{what}: {error}");
            assert_eq!(log, ["saved 0", "evaluating 0"], "{what}");

            // The limit is the manifest's: with room for what this run leaks, it goes through.
            let mut roomy = config.clone();
            roomy.eval.max_drift_bytes = 1 << 40;
            let (ending, ..) = run(&roomy, engine(&roomy, backend, true), &dir("roomy"), &dir("roomy"));
            assert!(matches!(ending, Ok(Ending::Finished(_))), "{what}: {ending:?}");
        }
    }
}

/// A run that the guard stops has lost nothing: a restart goes on after the last batch, so that even one that leaks in
/// every batch comes to its end, with the very same result.
#[test]
fn nothing_evaluated_is_lost_when_the_guard_stops_a_run() {
    let _alone = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
    let config = manifest("bigram");
    let library = Library::new(Cache::disabled());
    let rows = library.rows(&config).unwrap();
    let end = |ending: Result<Ending>| match ending {
        Ok(Ending::Finished(finished)) => Ok(*finished),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    let same = |a: &Finished, b: &Finished| (a.train_hash, &a.state.evals) == (b.train_hash, &b.state.evals);
    for &backend in BACKENDS {
        let place = tempfile::tempdir().unwrap();
        let train = |name: &str, leaks: bool| {
            let mut engine = engine(&config, backend, leaks);
            session_over(&config, rows.as_ref(), engine.as_mut(), &place.path().join(name))
        };
        let expected = end(train("sound", false).0).unwrap();

        let stopped = end(train("mended", true).0).unwrap_err();
        assert_eq!(stopped.key_path(), Some("eval.max_drift_bytes"), "{backend:?}: {stopped}");
        let (ending, log) = train("mended", false);
        assert!(same(&end(ending).unwrap(), &expected), "{backend:?}");
        let goes_on = format!("the evaluation at step 0 goes on after batch 2 of {EVAL_BATCHES}");
        assert_eq!(log[..2], ["evaluating 0".to_owned(), goes_on], "{backend:?}");

        let mut restarts = 0;
        let finished = loop {
            match end(train("leaking", true).0) {
                Ok(finished) => break finished,
                Err(error) => assert_eq!(error.key_path(), Some("eval.max_drift_bytes"), "{error}"),
            }
            restarts += 1;
            assert!(restarts < 3 * EVAL_BATCHES + 1, "{backend:?}: a dead end");
        };
        assert!(restarts > 1 && same(&finished, &expected), "{backend:?}");
    }
}

/// Rows whose evaluations keep every batch they have handed out.
struct Hoarding<'a>(&'a dyn Rows);

struct Hoard(Box<dyn BatchSource>, Vec<Batch>);

impl Rows for Hoarding<'_> {
    fn train(&self, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>> {
        self.0.train(cursor)
    }
    fn validation(&self, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>> {
        Ok(Box::new(Hoard(self.0.validation(cursor)?, Vec::new())))
    }
    fn token_bytes(&self) -> &[u32] {
        self.0.token_bytes()
    }
}

impl BatchSource for Hoard {
    fn next_batch(&mut self) -> Result<Batch> {
        let batch = self.0.next_batch()?;
        self.1.push(batch.clone());
        Ok(batch)
    }
    fn held(&self) -> LoaderBytes {
        let kept: usize = self.1.iter().map(|batch| 4 * (batch.inputs.len() + batch.targets.len())).sum();
        let LoaderBytes { held, most } = self.0.held();
        // Its bounds have room for batches made ahead; a hoard would fill it sooner or later.
        LoaderBytes { held: most.max(held) + kept as u64, most }
    }
}

#[test]
fn a_loader_that_keeps_its_batches_is_stopped() {
    let _alone = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut config = manifest("bigram");
    config.eval.max_drift_bytes = 300;
    let library = Library::new(Cache::disabled());
    let rows = library.rows(&config).unwrap();
    let place = tempfile::tempdir().unwrap();
    let train = |rows: &dyn Rows, name: &str| {
        let mut engine = engine(&config, BackendKind::Cpu, false);
        session_over(&config, rows, engine.as_mut(), &place.path().join(name)).0
    };
    assert!(matches!(train(rows.as_ref(), "sound"), Ok(Ending::Finished(_))));
    let error = train(&Hoarding(rows.as_ref()), "hoarding").unwrap_err();
    assert_eq!((error.class().exit_code(), error.key_path()), (3, Some("eval.max_drift_bytes")), "{error}");
    assert!(error.what().starts_with("the loader of the evaluation holds "), "{error}");
}

/// Weights of another model are refused before anything is trained.
#[test]
fn weights_that_do_not_fit_are_refused() {
    let config = manifest("bigram");
    let fitting = InitialValues::Drawn { seed: 1 }.all(&crate::backends::specs(&config.model)).unwrap();
    let (mut few, mut many, mut short) = (fitting.clone(), fitting.clone(), fitting.clone());
    few.pop();
    many.push(vec![0.0; 4]);
    short[0].pop();
    for &kind in BACKENDS {
        let backend = BackendChoice { kind, device: "cpu".to_owned(), precision: Precision::F32 };
        let made = |values: &[Vec<f32>]| {
            let values = InitialValues::Given(values.to_vec());
            engine_from(&config.model, &config.optimizer, &backend, 1, |_| Ok(values)).err()
        };
        for values in [&few, &many, &short] {
            let error = made(values).unwrap().to_string();
            assert!(error.contains("do not fit the network's parameters"), "{kind:?}: {error}");
        }
        assert!(made(&fitting).is_none());
    }
}
