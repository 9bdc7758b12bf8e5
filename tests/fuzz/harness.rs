//! The loop: mutate, run, watch.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use nanorun::internals::hash::Digest;

use super::coverage::Coverage;
use super::memory;
use super::mutation::mutate;
use super::rng::Rng;

/// The largest request for memory that an input of some kilobytes may cause.
const MOST_AT_ONCE: usize = 64 << 20;

/// The most memory that reading one may hold.
const MOST_IN_ALL: usize = 256 << 20;

/// One input takes longer than this only if it never ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// A reader under test.
pub(crate) struct Target<'a> {
    name: &'static str,
    /// Inputs that it accepts.
    seeds: Vec<Vec<u8>>,
    /// Words of the format.
    words: &'static [&'static [u8]],
    /// Reads an input: accepted or refused, or what about the answer is wrong.
    read: &'a dyn Fn(&[u8]) -> Result<Verdict, String>,
    last: LastInput,
}

/// A file that holds the input that is being read: what is left of it if that ends the process.
struct LastInput(fs::File);

impl LastInput {
    fn open(name: &str) -> Self {
        fs::create_dir_all(workplace()).unwrap();
        let path = workplace().join(format!("{name}.input"));
        let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(path);
        Self(file.unwrap())
    }

    fn set(&self, input: &[u8]) {
        // Its length first; 0 is none.
        let bytes = [&(input.len() as u64 + 1).to_le_bytes(), input].concat();
        self.0.write_all_at(&bytes, 0).unwrap();
    }

    fn clear(&self) {
        self.0.write_all_at(&0_u64.to_le_bytes(), 0).unwrap();
    }

    fn take(&self) -> Option<Vec<u8>> {
        let mut len = [0; 8];
        self.0.read_exact_at(&mut len, 0).ok()?;
        let len = u64::from_le_bytes(len).checked_sub(1)?;
        self.clear();
        let mut input = Vec::new();
        let mut rest = &self.0;
        rest.seek(SeekFrom::Start(8)).ok()?;
        rest.take(len).read_to_end(&mut input).ok()?;
        Some(input)
    }
}

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
}

/// What the panic hook heard last.
static PANIC: Mutex<Option<String>> = Mutex::new(None);
/// One target at a time: memory and coverage are the whole process's.
static ALONE: Mutex<()> = Mutex::new(());
/// Counts inputs; the watchdog sees whether it moves.
static INPUTS: AtomicU64 = AtomicU64::new(0);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn start_watching() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|place| place.file().ends_with("harness.rs")) {
                return usual(info);
            }
            // Another target may have read something, and so set the library's hook inside this one.
            if nanorun::internals::caught_panics::is_caught(info.payload()) {
                return;
            }
            *lock(&PANIC) = Some(info.to_string().replace('\n', " "));
        }));
        std::thread::spawn(|| {
            let mut before = (INPUTS.load(Ordering::Relaxed), nanorun::internals::files::now());
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let now = INPUTS.load(Ordering::Relaxed);
                if now.is_multiple_of(2) || now != before.0 {
                    before = (now, nanorun::internals::files::now());
                } else if before.1.elapsed() > PATIENCE {
                    eprintln!("fuzz: an input takes longer than {PATIENCE:?}");
                    std::process::abort();
                }
            }
        });
    });
}

impl<'a> Target<'a> {
    /// A reader with seeds that it accepts and words of its format.
    pub(crate) fn new(
        name: &'static str,
        seeds: Vec<Vec<u8>>,
        words: &'static [&'static [u8]],
        read: &'a dyn Fn(&[u8]) -> Result<Verdict, String>,
    ) -> Self {
        Self { name, seeds, words, read, last: LastInput::open(name) }
    }

    /// Tries what was found before, the seeds, and mutations of them until the time is up.
    ///
    /// # Panics
    /// On a finding, naming the file that holds the input.
    pub(crate) fn run(&self) {
        let _alone = lock(&ALONE);
        start_watching();
        let time = Duration::from_secs(setting("NANORUN_FUZZ_SECONDS").unwrap_or(1));
        let mut rng = Rng(setting("NANORUN_FUZZ_SEED").unwrap_or(1));
        let mut coverage = Coverage::new();
        if let Some(input) = self.last.take() {
            let path = self.finding(&input);
            println!("fuzz {}: an earlier process ended in the middle of {}", self.name, path.display());
            self.attempt(&input).unwrap_or_else(|what| panic!("{}: {}: {what}", self.name, path.display()));
            fs::remove_file(path).unwrap();
        }
        let mut corpus = self.seeds.clone();
        for (number, seed) in self.seeds.iter().enumerate() {
            assert_eq!(self.attempt(seed), Ok(Verdict::Accepted), "{}: seed {number}", self.name);
            coverage.advance();
        }
        for (path, input) in files(&regressions().join(self.name)).into_iter().chain(self.kept()) {
            self.attempt(&input).unwrap_or_else(|what| panic!("{}: {}: {what}", self.name, path.display()));
            coverage.advance();
            corpus.push(input);
        }
        // What was kept is replayed, however long it takes; the time is for what is new.
        let started = nanorun::internals::files::now();
        let (mut accepted, mut refused) = (0_u64, 0_u64);
        while started.elapsed() < time {
            let mut input = rng.pick(&corpus).cloned().unwrap_or_default();
            let other = rng.pick(&corpus).cloned().unwrap_or_default();
            mutate(&mut input, &other, self.words, &mut rng);
            match self.attempt(&input) {
                Ok(Verdict::Accepted) => accepted += 1,
                Ok(Verdict::Refused) => refused += 1,
                Err(what) => self.report(input, &what),
            }
            if coverage.is_there() && coverage.advance() {
                self.keep(&input);
                corpus.push(input);
            }
        }
        let guided = if coverage.is_there() {
            format!(", {} edges, {} inputs kept", coverage.edges(), corpus.len())
        } else {
            String::new()
        };
        println!("fuzz {}: {accepted} accepted, {refused} refused{guided}", self.name);
        assert!(accepted + refused > 0);
    }

    /// Reads one input under watch; the error says what was wrong.
    fn attempt(&self, input: &[u8]) -> Result<Verdict, String> {
        self.last.set(input);
        *lock(&PANIC) = None;
        let held = memory::start();
        INPUTS.fetch_add(1, Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.read)(input)));
        INPUTS.fetch_add(1, Ordering::Relaxed);
        self.last.clear();
        let asked = memory::since(held);
        match (outcome, lock(&PANIC).take()) {
            (_, Some(panic)) => Err(panic),
            (Err(_), None) => Err("a panic that no hook heard of".to_owned()),
            (Ok(Ok(_)), None) if asked.at_once > MOST_AT_ONCE || asked.in_all > MOST_IN_ALL => {
                Err(format!("{asked:?} for {} bytes of input", input.len()))
            }
            (Ok(verdict), None) => verdict,
        }
    }

    /// Makes the input smaller as long as anything is wrong with it, stores it and fails.
    fn report(&self, mut input: Vec<u8>, what: &str) -> ! {
        let mut what = what.to_owned();
        let mut part = input.len() / 2;
        while part > 0 {
            let mut at = 0;
            while at < input.len() {
                let mut smaller = input.clone();
                smaller.drain(at..(at + part).min(smaller.len()));
                match self.attempt(&smaller) {
                    Err(still) => (input, what) = (smaller, still),
                    Ok(_) => at += part,
                }
            }
            part /= 2;
        }
        let path = self.finding(&input);
        panic!(
            "{}: {what}\n  input: {}\n  once it is fixed, keep it as tests/fixtures/fuzz_regressions/{}/NAME",
            self.name,
            path.display(),
            self.name
        );
    }

    /// Stores an input that something is wrong with.
    fn finding(&self, input: &[u8]) -> PathBuf {
        let path = workplace().join("findings").join(self.name).join(Digest::of(input).short());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, input).unwrap();
        path
    }

    /// Inputs that reached something new in earlier runs, where they are kept.
    fn kept(&self) -> Vec<(PathBuf, Vec<u8>)> {
        std::env::var_os("NANORUN_FUZZ_CORPUS")
            .map_or_else(Vec::new, |corpus| files(&Path::new(&corpus).join(self.name)))
    }

    fn keep(&self, input: &[u8]) {
        if let Some(corpus) = std::env::var_os("NANORUN_FUZZ_CORPUS") {
            let path = Path::new(&corpus).join(self.name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(Digest::of(input).short()), input).unwrap();
        }
    }
}

fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fuzz_regressions")
}

/// Where inputs and findings are left.
fn workplace() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz")
}

/// A directory for the files that a reader is given, in memory where the system has such a place.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The files of a directory, by name; none where it is not there.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}
