//! What can be said on the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::cancel::CancelArgs;
use super::compare::CompareArgs;
use super::completions::CompletionsArgs;
use super::data::DataArgs;
use super::eval::EvalArgs;
use super::export::ExportArgs;
use super::import::ImportArgs;
use super::ledger::LedgerArgs;
use super::man::ManArgs;
use super::new::NewArgs;
use super::quickstart::QuickstartArgs;
use super::runs::RunsArgs;
use super::sample::SampleArgs;
use super::show::ShowArgs;
use super::status::StatusArgs;
use super::submit::SubmitArgs;
use super::tokenizer::TokenizerArgs;
use super::try_out::TryArgs;
use super::undecided::UndecidedArgs;
use super::watch::WatchArgs;
use super::work::WorkArgs;
use crate::console::Progress;

/// Declarative, bit-exactly reproducible experiments for nanochat-style pretraining.
///
/// `nanorun MANIFEST` alone runs the manifest. Results go to stdout, everything else to stderr.
#[derive(Debug, Parser)]
#[command(
    name = "nanorun",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    override_usage = "nanorun MANIFEST [OPTIONS]\n       nanorun COMMAND [OPTIONS]",
    after_help = EXIT_CODES
)]
pub(super) struct Cli {
    /// Write everything that goes to stderr into this file too, with times; what is there is kept
    #[arg(long, value_name = "FILE", global = true, help_heading = "Of every command")]
    pub(super) log: Option<PathBuf>,
    /// How progress is shown on stderr
    #[arg(
        long,
        value_name = "HOW",
        global = true,
        help_heading = "Of every command",
        default_value = "auto",
        hide_possible_values = true,
        help = "How progress is shown on stderr: auto, bars, lines, json (for programs) or off"
    )]
    pub(super) progress: Progress,
    /// The command; a manifest alone is `run`.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What a command line that is not understood says of its log and of who watches.
pub(super) fn console_of(given: &[OsString]) -> (Option<PathBuf>, Progress) {
    let value = |name: &str| {
        given.iter().enumerate().find_map(|(at, argument)| {
            let argument = argument.to_str()?;
            match argument.strip_prefix(name)? {
                "" => given.get(at + 1).cloned(),
                rest => rest.strip_prefix('=').map(OsString::from),
            }
        })
    };
    let json = value("--progress").is_some_and(|how| how == "json");
    (value("--log").map(PathBuf::from), if json { Progress::Json } else { Progress::Auto })
}

impl Cli {
    /// Puts in the `run` that `nanorun MANIFEST` leaves out.
    pub(super) fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = given.into_iter().collect();
        // What every command takes may stand before it.
        let mut at = 1;
        while let Some(word) = arguments.get(at).and_then(|word| word.to_str()) {
            match word {
                "--log" | "--progress" => at += 2,
                word if word.starts_with("--log=") || word.starts_with("--progress=") => at += 1,
                _ => break,
            }
        }
        let Some(first) = arguments.get(at) else { return arguments };
        let own = ["-h", "--help", "-V", "--version"];
        let command = <Self as CommandFactory>::command();
        let known = first.to_str().is_some_and(|first| {
            own.contains(&first) || command.get_subcommands().any(|command| command.get_name() == first)
        });
        // A bare word that is no file is a command misspelt, which clap corrects.
        let word =
            first.to_str().is_some_and(|first| first.chars().all(|letter| letter.is_ascii_lowercase()));
        let misspelt = word && !Path::new(first).exists();
        if !known && !misspelt {
            arguments.insert(at, "run".into());
        }
        arguments
    }
}

const EXIT_CODES: &str = "\
Examples:
  nanorun experiments/quickstart.toml            train six small models and judge them
  nanorun new                                    write a manifest of your own
  nanorun runs --sort val_bpb                    what was trained so far, the best first
  nanorun COMMAND --help                         has examples too

Exit codes:
  0    done, and no verdict failed
  1    a defect in nanorun
  2    a bad manifest, argument or input file; nothing was written
  3    a run failed (NaN loss, out of memory, backend missing)
  4    a result hash differs
  5    a quality, speed or target verdict failed
  130  interrupted; the same command carries on from there";

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the first experiment, from any directory; its manifest is left there
    Quickstart(QuickstartArgs),
    /// Write a commented manifest, by asking or from flags; upstream's flags are understood too
    New(NewArgs),
    /// Carry out an experiment: train what is not done yet, then write tables and the scorecard
    Run(RunArgs),
    /// Take part in an experiment that several processes or machines carry out together
    Work(WorkArgs),
    /// Show what would be run, and why, without doing it
    Plan(PlanArgs),
    /// Give an experiment to a scheduler, a job a tree of runs
    Submit(SubmitArgs),
    /// Tell how an experiment stands on a cluster: units, who trains what, what failed
    Status(StatusArgs),
    /// End what was submitted
    Cancel(CancelArgs),
    /// Carry on an interrupted experiment from its results directory
    Resume(ResumeArgs),
    /// Run or read an experiment and compare its hashes with a baseline
    Verify(VerifyArgs),
    /// Compare two results directories, run by run
    Diff(DiffArgs),
    /// Judge finished runs again, print the scorecard, and write pages and figures
    Report(ReportArgs),
    /// List runs of all results, filtered and sorted
    Runs(RunsArgs),
    /// Tell one run's story: its lives, curves, values, hashes, and how to repeat it
    Show(ShowArgs),
    /// Compare two runs: settings, where they part, curves and values
    Compare(CompareArgs),
    /// Show curves while runs go on, and keep report.html up to date
    Watch(WatchArgs),
    /// Try a change against a control: one verdict with its interval and its cost
    Try(TryArgs),
    /// Look up what was asked before and how it came out
    Ledger(LedgerArgs),
    /// Evaluate a trained model on validation text: bits per byte, with what defines it
    Eval(EvalArgs),
    /// Sample text from a trained model
    Sample(SampleArgs),
    /// Check the implementation against upstream's own numbers
    Parity(ParityArgs),
    /// Measure training speed, time per operation and memory
    Bench(BenchArgs),
    /// Write a trained model in the form of another program
    Export(ExportArgs),
    /// Write the manifest that trains a checkpoint of upstream's on
    Import(ImportArgs),
    /// Pin the hashes of an experiment's data in its manifest
    Lock(LockArgs),
    /// Show what is cached beside the results, or clear it
    Cache(CacheArgs),
    /// Bring published data here, and check them
    Data(DataArgs),
    /// Make, apply, compare and convert tokenizers
    Tokenizer(TokenizerArgs),
    /// List what nothing needs of results, and remove it
    Clean(CleanArgs),
    /// Show the hardware, the backends and why one does not work
    Doctor(DoctorArgs),
    /// Print the reference of every manifest field, as Markdown or as a JSON schema
    Fields(FieldsArgs),
    /// Print what a shell needs to complete commands and options
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(ManArgs),
}

/// `nanorun fields`
#[derive(Debug, Clone, Args)]
#[command(after_help = FIELDS_HELP)]
pub(super) struct FieldsArgs {
    /// Print a JSON schema: editors complete and check a manifest whose first line is `#:schema PATH`
    #[arg(long)]
    pub(super) schema: bool,
}

/// How an experiment is read and where its results are.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// Lay `[profile.NAME]` over the manifest
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<String>,
    /// Override a manifest field; what then decides other results has a directory of its own
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(super) sets: Vec<String>,
    /// Only the cells that have this value; several of one field are alternatives
    #[arg(long = "only", value_name = "PATH=VALUE")]
    pub(super) only: Vec<String>,
    /// Where results are kept
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(super) results: PathBuf,
    /// Threads of the CPU backend (default: the manifest's, or all cores); never changes a result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Print results and errors only: no progress, no notes
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// `nanorun run`
#[derive(Debug, Clone, Args)]
#[command(after_help = RUN_HELP)]
pub(super) struct RunArgs {
    /// The experiment's manifest
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
    /// Run again what is finished
    #[arg(long)]
    pub(super) rerun: bool,
    /// Train every run from its first step, sharing no prefix
    #[arg(long)]
    pub(super) no_share: bool,
    /// Take finished runs over from these results instead of training them; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(super) reuse: Vec<PathBuf>,
    /// Runs trained at the same time (default: the plan's choice)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// A worker for each of these devices: `cuda:0,cuda:1`, `all` for all GPUs, or `cpu,cpu` to divide the threads
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with_all = ["rerun", "jobs"])]
    pub(super) devices: Vec<String>,
    /// What undecided verdicts are
    #[command(flatten)]
    pub(super) undecided: UndecidedArgs,
    /// Common options
    #[command(flatten)]
    pub(super) common: Common,
}

/// `nanorun plan`
#[derive(Debug, Clone, Args)]
#[command(after_help = PLAN_HELP)]
pub(super) struct PlanArgs {
    /// The experiment's manifest
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
    /// Take finished runs over from these results instead of training them; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(super) reuse: Vec<PathBuf>,
    /// Common options
    #[command(flatten)]
    pub(super) common: Common,
}

/// `nanorun resume`
#[derive(Debug, Clone, Args)]
#[command(after_help = RESUME_HELP)]
pub(super) struct ResumeArgs {
    /// A results directory, e.g. results/quickstart, or a run or a manifest that has one
    #[arg(value_name = "EXPERIMENT")]
    pub(super) directory: PathBuf,
    /// Only the cells that have this value (default: those of the last start); several of one field are alternatives
    #[arg(long = "only", value_name = "PATH=VALUE")]
    pub(super) only: Vec<String>,
    /// Take finished runs over from these results instead of training them; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(super) reuse: Vec<PathBuf>,
    /// What undecided verdicts are
    #[command(flatten)]
    pub(super) undecided: UndecidedArgs,
    /// Threads of the CPU backend (default: the manifest's, or all cores); never changes a result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Print results and errors only: no progress, no notes
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// `nanorun verify`
#[derive(Debug, Clone, Args)]
#[command(after_help = VERIFY_HELP)]
pub(super) struct VerifyArgs {
    /// A manifest, a results directory, or EXPERIMENT/KEY with the first digits of a run's key
    #[arg(value_name = "EXPERIMENT")]
    pub(super) manifest: PathBuf,
    /// The baseline (default: the manifest's `scorecard.reproducibility.baseline`)
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,
    /// Write the baseline from these results instead of comparing
    #[arg(long)]
    pub(super) bless: bool,
    /// Compare the results that are there; run nothing
    #[arg(long)]
    pub(super) read: bool,
    /// Take finished runs over from these results instead of training them; may be given several times
    #[arg(long, value_name = "DIR", conflicts_with = "read")]
    pub(super) reuse: Vec<PathBuf>,
    /// Write a JUnit report for CI
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Write a Markdown summary for CI
    #[arg(long, value_name = "FILE")]
    pub(super) markdown: Option<PathBuf>,
    /// What undecided verdicts are
    #[command(flatten)]
    pub(super) undecided: UndecidedArgs,
    /// Common options
    #[command(flatten)]
    pub(super) common: Common,
}

/// `nanorun diff`
#[derive(Debug, Clone, Args)]
#[command(after_help = DIFF_HELP)]
pub(super) struct DiffArgs {
    /// A results directory of an experiment, e.g. results/quickstart, a manifest that has one, or EXPERIMENT/KEY
    pub(super) a: PathBuf,
    /// The one it is compared with
    pub(super) b: PathBuf,
    /// Only the cells that have this value of an axis; several of one field are alternatives
    #[arg(long = "only", value_name = "PATH=VALUE")]
    pub(super) only: Vec<String>,
    /// Where results are kept
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(super) results: PathBuf,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
}

/// `nanorun report`
#[derive(Debug, Clone, Args)]
#[command(after_help = REPORT_HELP)]
pub(super) struct ReportArgs {
    /// A manifest, a results directory, or EXPERIMENT/KEY with the first digits of a run's key; several are compared
    #[arg(value_name = "EXPERIMENT", required = true)]
    pub(super) experiments: Vec<PathBuf>,
    /// Write a page about them: one file that needs no network
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write each figure of that page as an SVG file
    #[arg(long, value_name = "DIR")]
    pub(super) svg: Option<PathBuf>,
    /// Write the cards as Markdown, for a pull request
    #[arg(long, value_name = "FILE")]
    pub(super) markdown: Option<PathBuf>,
    /// What undecided verdicts are
    #[command(flatten)]
    pub(super) undecided: UndecidedArgs,
    /// Common options
    #[command(flatten)]
    pub(super) common: Common,
}

/// `nanorun parity`
#[derive(Debug, Clone, Args)]
#[command(after_help = PARITY_HELP)]
pub(super) struct ParityArgs {
    /// Cases, or directories of them (default: the project's, tests/fixtures/parity and parity_shapes, in bf16 parity_bf16 too)
    #[arg(value_name = "DIR")]
    pub(super) cases: Vec<PathBuf>,
    /// The backend to check: cpu, tch or scalar
    #[arg(long, default_value = "cpu")]
    pub(super) backend: String,
    /// Device of the tch backend: cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(super) device: String,
    /// What cpu and tch compute in: f32, or bf16 with wider tolerances and upstream's own bf16 cases too
    #[arg(long, default_value = "f32")]
    pub(super) precision: String,
    /// Threads of the CPU backend (default: all cores)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Print machine-readable JSON on stdout
    #[arg(long, conflicts_with = "markdown")]
    pub(super) json: bool,
    /// Print a Markdown table on stdout
    #[arg(long)]
    pub(super) markdown: bool,
}

/// `nanorun bench`
#[derive(Debug, Clone, Args)]
#[command(after_help = BENCH_HELP)]
pub(super) struct BenchArgs {
    /// The manifest whose first run is measured
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
    /// Steps to measure, after two that are not
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(super) steps: u64,
    /// Measure the tokenizer and packing too; reads the whole train split into memory
    #[arg(long)]
    pub(super) data: bool,
    /// As `--set run.precision`: `f32` or `bf16`
    #[arg(long, value_name = "P")]
    pub(super) precision: Option<String>,
    /// Common options
    #[command(flatten)]
    pub(super) common: Common,
}

/// `nanorun lock`
#[derive(Debug, Clone, Args)]
#[command(after_help = LOCK_HELP)]
pub(super) struct LockArgs {
    /// The experiment's manifest, rewritten with `[data] sha256` pins
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
    /// Common options
    #[command(flatten)]
    pub(super) common: Common,
}

/// `nanorun clean`
#[derive(Debug, Clone, Args)]
#[command(after_help = CLEAN_HELP)]
pub(super) struct CleanArgs {
    /// A manifest or a results directory (default: every experiment in the results)
    #[arg(value_name = "EXPERIMENT")]
    pub(super) experiment: Option<PathBuf>,
    /// Lay `[profile.NAME]` over the manifest
    #[arg(long, value_name = "NAME", requires = "experiment")]
    pub(super) profile: Option<String>,
    /// Override a manifest field; may be given several times
    #[arg(long = "set", value_name = "PATH=VALUE", requires = "experiment")]
    pub(super) sets: Vec<String>,
    /// Only the cells that have this value of an axis; several of one field are alternatives
    #[arg(long = "only", value_name = "PATH=VALUE", requires = "experiment")]
    pub(super) only: Vec<String>,
    /// Remove what is listed: never a result, a table or a journal, and nothing where another nanorun works
    #[arg(long)]
    pub(super) yes: bool,
    /// Where results are kept
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(super) results: PathBuf,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
}

/// `nanorun doctor`
#[derive(Debug, Clone, Args)]
#[command(after_help = DOCTOR_HELP)]
pub(super) struct DoctorArgs {
    /// Where results are going to be kept
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(super) results: PathBuf,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
}

/// `nanorun cache`
#[derive(Debug, Clone, Args)]
#[command(after_help = CACHE_HELP)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CacheArgs {
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// What to do instead of showing it
    #[command(subcommand)]
    pub(super) action: Option<CacheAction>,
}

/// What `nanorun cache` can do.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum CacheAction {
    /// Remove entries; runs that use them go on and make them again
    Clear(ClearArgs),
}

/// `nanorun cache clear`
#[derive(Debug, Clone, Args)]
#[command(after_help = CLEAR_HELP)]
pub(super) struct ClearArgs {
    /// Only entries of this kind; `old` is what earlier versions left
    #[arg(long, value_name = "KIND", value_parser = ["tokens", "tokenizers", "digests", "indices", "scores", "old"])]
    pub(super) kind: Option<String>,
    /// Only entries that have not been used for this long, such as 12h or 7d
    #[arg(long, value_name = "AGE", value_parser = super::cache::parse_age)]
    pub(super) older_than: Option<Duration>,
    /// Remove them; without it, only say how much that would be
    #[arg(long)]
    pub(super) yes: bool,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
}

const RUN_HELP: &str = "\
Examples:
  nanorun experiments/quickstart.toml                          the same as nanorun run experiments/quickstart.toml
  nanorun run m.toml --profile smoke                           a profile of the manifest, to results/NAME@smoke
  nanorun run m.toml --set budget.steps=2000                   a variation of it, to a directory of its own
  nanorun run m.toml --only run.seed=1 --only run.seed=2       some of its cells
  nanorun run m.toml --progress json --log run.log             for programs, and for later";

const PLAN_HELP: &str = "\
Examples:
  nanorun plan experiments/quickstart.toml                     runs, sizes, time, memory, what the seeds can find
  nanorun plan m.toml --profile smoke --set model.depth=4
  nanorun plan m.toml --json | jq .runs";

const RESUME_HELP: &str = "\
Examples:
  nanorun resume results/quickstart                            with the arguments of its last start
  nanorun resume results/quickstart --only run.seed=3";

const VERIFY_HELP: &str = "\
Examples:
  nanorun verify experiments/ci.toml                           runs, then compares with the manifest's baseline
  nanorun verify results/ci --read --baseline baselines/ci.toml --markdown summary.md
  nanorun verify experiments/ci.toml --bless                   makes these results the baseline";

const DIFF_HELP: &str = "\
Examples:
  nanorun diff results/quickstart elsewhere/results/quickstart
  nanorun diff results/a/4734d3 results/b/4734d3               two runs, bit by bit; `nanorun compare` shows their curves";

const REPORT_HELP: &str = "\
Examples:
  nanorun report results/quickstart                            the card again
  nanorun report results/quickstart --html page.html --svg figures --markdown card.md
  nanorun report results/d12 results/d20 --html both.html      several, compared";

const PARITY_HELP: &str = "\
Examples:
  nanorun parity                                               the project's own cases on the cpu backend
  nanorun parity shared/parity --backend tch --device cuda:0 --precision bf16 --markdown";

const BENCH_HELP: &str = "\
Examples:
  nanorun bench experiments/bench_d4_t512.toml --steps 20
  nanorun bench m.toml --data --json";

const LOCK_HELP: &str = "\
Examples:
  nanorun lock m.toml                                          writes [data.sha256]; runs then check their data";

const CLEAN_HELP: &str = "\
Examples:
  nanorun clean                                                lists what nothing needs, in all of results/
  nanorun clean results/quickstart --yes                       removes it";

const DOCTOR_HELP: &str = "\
Examples:
  nanorun doctor
  nanorun doctor --results /scratch/me/results --json";

const CACHE_HELP: &str = "\
Examples:
  nanorun cache                                                what is there
  nanorun cache clear --kind tokens --older-than 30d --yes";

const CLEAR_HELP: &str = "\
Examples:
  nanorun cache clear                                          how much that would be
  nanorun cache clear --kind old --yes";

const FIELDS_HELP: &str = "\
Examples:
  nanorun fields | less                                        every field, with units and what it is when left out
  nanorun fields --schema > manifest.schema.json               then, first in a manifest: #:schema manifest.schema.json";
