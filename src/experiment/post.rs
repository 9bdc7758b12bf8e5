//! A process's place in an experiment that others may work on at the same time: it registers, and leaves.

use std::io;
use std::time::{Duration, SystemTime};

use super::{Experiment, HowToRun};
use crate::error::{Class, Error, Result};
use crate::files::{DirLock, FileError, LockError, LockHolder, SharedLock, now};
use crate::hash::{Canonical, Digest};
use crate::host::host_name;
use crate::lease::{Claimed, Lease, Leases, Registered, Worker, at_work, register};
use crate::record::{self, LAYOUT, PlanRecord};
use crate::stop::StopFlag;
use crate::train::evaluation::eval_settings;

/// How often somebody looks whether a lock has been let go.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest between two looks whether a turn has come.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// After how long it is said that another one's turn is waited for.
const LONG_TURN: Duration = Duration::from_secs(5);

/// Turns whose records stay: a process whose view of the directory is older than so many of them may take one beside
/// another, which costs no more than the same tables written twice.
const TURNS_KEPT: u64 = 64;

/// That this process works in an experiment's directory.
pub(super) struct Post {
    /// Its leases of runs.
    pub(super) leases: Leases,
    /// Whether others were at work when it came.
    pub(super) in_company: bool,
    // Gone before the leases' thread, which beats for it.
    registered: Registered,
    /// Keeps those out that know no leases, and `clean`.
    _shared: SharedLock,
}

impl Post {
    /// Since when, by the clock of the file server.
    pub(super) fn since(&self) -> Option<SystemTime> {
        self.registered.since()
    }
}

impl Experiment {
    /// Makes the directory, registers this process in it, removes what crashes left, and writes the plan.
    ///
    /// # Errors
    /// A place that cannot be written; another manifest's results, or a later layout; others that work there by another
    /// plan or with another nanorun.
    pub(super) fn enter(&self, how: &HowToRun<'_>) -> Result<Post> {
        self.files.create_dir_all(self.dir.path()).map_err(|error| self.not_writable(error))?;
        let mut told = false;
        let waiting = |held: &LockError| {
            if !std::mem::replace(&mut told, true) {
                how.display.line(&format!("waiting: {held}"));
            }
            !how.stop.is_raised()
        };
        PlanRecord::check_layout(&self.files, &self.dir)?;
        self.require_own_directory()?;
        self.recover(how)?;
        let shared = unless_stopped(DirLock::share_waiting(self.dir.path(), PAUSE, waiting), how.stop)?;
        let worker = self.worker(how);
        let leases = Leases::new(worker.holder.clone(), self.beat());
        let _turn = self.turn(&leases, how)?;
        // Again: somebody may have come between.
        self.require_own_directory()?;
        let registering = |error| self.not_writable(FileError::new("register in", self.dir.path(), error));
        let registered = register(&leases, self.dir.path(), &worker).map_err(registering)?;
        let others = at_work(self.dir.path()).map_err(registering)?;
        others.iter().try_for_each(|other| self.require_same_work(&worker, other))?;
        let recorded = self.files.read_if_there(&self.dir.file(record::PLAN_NAME))?.is_some();
        if others.is_empty() || !recorded {
            // First: a plan without its manifest says less than a manifest without its plan.
            self.files.write(&self.dir.manifest(), self.manifest.text.as_bytes())?;
            self.plan_record(how).write(&self.files, &self.dir)?;
        }
        let display = how.display.clone();
        self.files.notes_to(move |note| display.line(&format!("note: {note}")));
        Ok(Post { leases, in_company: !others.is_empty(), registered, _shared: shared })
    }

    /// Undoes what crashes left, where nobody else can be at work: the directory is had alone for a moment. Where it cannot
    /// be, what a dead process left of a run is undone by whoever takes the run, and `clean` finds the rest.
    fn recover(&self, how: &HowToRun<'_>) -> Result<()> {
        let others = at_work(self.dir.path());
        if !others.is_ok_and(|others| others.is_empty()) || how.stop.is_raised() {
            return Ok(());
        }
        if let Ok(lock) = DirLock::acquire(self.dir.path(), &LockHolder::this_process(&host_name())) {
            lock.recover(&self.files, self.dir.path())?;
        }
        Ok(())
    }

    /// The right to write what is the experiment's own, tables and logs: one process at a time, as far as can be told. Two
    /// that have it at once, because nothing was heard of the first, write the same from the same results.
    ///
    /// # Errors
    /// A stop while it was waited for; a directory that cannot be written.
    pub(super) fn turn(&self, leases: &Leases, how: &HowToRun<'_>) -> Result<Lease> {
        let root = self.dir.turn();
        let failed = |error| FileError::new("take turns in", &root, error);
        let mut told = false;
        let since = now();
        let mut pause = PAUSE / 10;
        loop {
            let holder = match leases.claim(&root).map_err(failed)? {
                Claimed::Mine(turn) => {
                    turn.forget_before(TURNS_KEPT);
                    return Ok(turn);
                }
                Claimed::Theirs { holder, .. } => holder,
            };
            if how.stop.is_raised() {
                return Err(Error::new(Class::Interrupted, "stopped while waiting for another nanorun"));
            }
            if since.elapsed() > LONG_TURN && !std::mem::replace(&mut told, true) {
                let who = holder.map(|holder| format!(": process {} on {}", holder.pid, holder.host));
                how.display
                    .line(&format!("waiting for another nanorun to write tables{}", who.unwrap_or_default()));
            }
            // Not all at the same moments, where hundreds begin at once.
            std::thread::sleep(pause + pause * (std::process::id() % 8) / 8);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Time between two beats of this experiment's workers.
    pub(super) fn beat(&self) -> Duration {
        let seconds = self.manifest.head.cluster.beat_seconds;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(30))
    }

    /// What this process says of itself.
    fn worker(&self, how: &HowToRun<'_>) -> Worker {
        let program = std::env::current_exe().and_then(std::fs::metadata);
        Worker {
            holder: LockHolder::this_process(&host_name()),
            plan: self.work_digest(),
            nanorun: env!("CARGO_PKG_VERSION").to_owned(),
            program_bytes: program.map_or(0, |meta| meta.len()),
            threads: how.threads,
            beat_seconds: self.beat().as_secs_f64(),
            unit: how.unit.clone(),
        }
    }

    /// Digest over what all who work here must agree on: the manifest, what lies over it, and the runs that follow.
    fn work_digest(&self) -> Digest {
        let mut hashed = Canonical::new("nanorun work");
        hashed.str("manifest", &self.manifest.text);
        hashed.str("profile", self.manifest.profile.as_deref().unwrap_or_default());
        for departure in self.manifest.variation.departures() {
            hashed.str("departure", &departure);
        }
        for run in &self.plan.runs {
            hashed.digest("run", &run.key.run);
        }
        hashed.finish()
    }

    /// Refuses to work beside somebody who does something else, or with another nanorun.
    fn require_same_work(&self, own: &Worker, other: &Worker) -> Result<()> {
        let LockHolder { pid, host, since, command, .. } = &other.holder;
        let who = format!("process {pid} on {host} since {since} (`{command}`)");
        let help = "wait for it to end, or stop it, or choose another place with --results DIR";
        let refused = |what: String, expected: &str| {
            Err(Error::input(what).file(self.dir.path()).expected(expected.to_owned()).help(help))
        };
        if other.plan != own.plan {
            let what = format!("another nanorun works here by another plan: {who}");
            return refused(what, "the manifest, profile and data that it was started with");
        }
        if (&other.nanorun, other.program_bytes) != (&own.nanorun, own.program_bytes) {
            let what = format!("another build of nanorun ({}) works here: {who}", other.nanorun);
            return refused(what, "the same program for all who work on one experiment");
        }
        Ok(())
    }

    /// What the experiment sets out to do, for its directory.
    fn plan_record(&self, how: &HowToRun<'_>) -> PlanRecord {
        let mut controls: Vec<usize> = self.plan.arms.iter().filter_map(|arm| arm.control).collect();
        controls.dedup();
        // Where every arm has a control of its own, no single one is the experiment's.
        let control = Some(controls).filter(|controls| controls.len() == 1).and_then(|mut one| one.pop());
        // Those that the command is not about need no data: of what they are without, nobody knows what they will be.
        let known = self.plan.runs.iter().filter(|run| !run.key.pending);
        let runs = known.map(|run| record::PlannedRun {
            arm: self.arm(run).to_owned(),
            seed: run.config.seed,
            key: run.key.run,
            steps: run.sizes.steps,
            evaluation: Some(eval_settings(&run.config)),
            vocab_size: Some(run.config.model.vocab_size() as u64),
            content: run.config.data.content,
            data: run.data,
            cell: run.cell.clone(),
        });
        let directory = std::env::current_dir().ok();
        PlanRecord {
            layout: LAYOUT,
            name: self.plan.name.clone(),
            question: self.plan.question.clone(),
            hypothesis: self.manifest.head.hypothesis.clone(),
            manifest: self.manifest.file.display().to_string(),
            directory: directory.map(|directory| directory.display().to_string()),
            profile: self.manifest.profile.clone(),
            sets: self.manifest.sets.clone(),
            env: self.manifest.env.clone(),
            only: self.manifest.only.clone(),
            varied: self.manifest.variation.departures(),
            no_share: !how.share,
            nanorun: env!("CARGO_PKG_VERSION").to_owned(),
            control: control.and_then(|arm| Some(self.plan.arms.get(arm)?.label.clone())),
            runs: runs.collect(),
        }
    }

    /// The error of a results directory that cannot be made.
    fn not_writable(&self, cause: FileError) -> Error {
        // A disk that is full or fails is no matter of the place alone.
        if !matches!(
            cause.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::Other
        ) {
            return cause.into();
        }
        let why = match cause.kind() {
            // Of the directory itself: file systems such as /proc take none.
            io::ErrorKind::NotFound => "nothing can be made there".to_owned(),
            _ => cause.to_string(),
        };
        Error::input(format!("the results directory cannot be made: {why}"))
            .file(self.dir.path())
            .expected("a directory that can be written")
            .help("choose another place with --results DIR")
    }
}

/// The lock, or that it was asked to stop while somebody else had it.
fn unless_stopped<T>(lock: std::result::Result<T, LockError>, stop: &StopFlag) -> Result<T> {
    match lock {
        Err(LockError::Held { .. } | LockError::Unknown { .. }) if stop.is_raised() => {
            Err(Error::new(Class::Interrupted, "stopped while waiting for another nanorun"))
        }
        lock => Ok(lock?),
    }
}
