//! The command line: one file a command, and the exit code of the process.

mod args;
mod bench;
mod cache;
mod cancel;
mod clean;
mod compare;
mod comparison;
mod completions;
mod data;
mod devices;
mod diff;
mod doctor;
mod eval;
mod eval_core;
mod export;
mod import;
mod ledger;
mod lock;
mod man;
mod naming;
mod new;
mod output;
mod parity;
mod plan;
mod quickstart;
mod report;
mod resume;
mod run;
mod runs;
mod sample;
mod selection;
mod show;
mod status;
mod subject;
mod submit;
mod tokenizer;
mod threads;
mod try_out;
mod undecided;
mod verify;
mod version;
mod waiting;
mod watch;
mod work;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use crate::backend::torch::device::is_not_built;
use crate::console;
use crate::control_word;
use crate::error::{Class, Error, Result};
use crate::experiment::Experiment;
use crate::manifest::{Manifest, Options};
use crate::simd;
use crate::stop::{self, is_stop};
use crate::system;

use args::{Cli, Command, Common};
use output::Output;

/// What the package `nanorun-torch` calls its program.
const WITH_LIBTORCH: &str = "nanorun-torch";

/// Parses the command line, carries the command out and reports how it went.
pub fn main() -> ExitCode {
    // Before any thread is started: threads have the word of the one that starts them.
    control_word::set();
    stop::outlive_file_limits();
    let given: Vec<OsString> = std::env::args_os().collect();
    if version::is_asked_for(&given) {
        Output::new(false).result(&version::version().to_string());
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse_from(Cli::arguments(given.clone())) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, &given),
    };
    if let Err(error) = console::start(cli.log.as_deref(), cli.progress) {
        return failed(&error);
    }
    let command: Vec<_> = given.iter().map(|argument| argument.to_string_lossy()).collect();
    let began = json!({
        "format": console::PROGRESS_FORMAT,
        "nanorun": env!("CARGO_PKG_VERSION"),
        "command": command,
    });
    console::event("began", began);
    console::log(&command.join(" "));
    let code = match simd::forced().and_then(|_| system::forced()).and_then(|_| dispatch(cli)) {
        Ok(None) => 0,
        Ok(Some(class)) => class.exit_code(),
        Err(error) => {
            let error = if is_not_built(&error) { with_libtorch(error, &given) } else { error };
            failed(&error);
            error.class().exit_code()
        }
    };
    console::event("ended", json!({ "exit_code": code }));
    console::log(&format!("exit code {code}"));
    ExitCode::from(code)
}

/// Hands a command that asks for the tch backend to the program of the package `nanorun[torch]`, which stands beside this
/// one where it is installed. Nothing has been computed yet: devices are looked at first. Comes back where there is none,
/// or it cannot be started.
fn with_libtorch(error: Error, given: &[OsString]) -> Error {
    let beside = |program: std::path::PathBuf| Some(program.parent()?.join(WITH_LIBTORCH));
    let Some(program) = std::env::current_exe().ok().and_then(beside).filter(|path| path.is_file()) else {
        return error;
    };
    let why = system::become_program(&program, given.get(1..).unwrap_or_default());
    Error::new(Class::Run, format!("{} cannot be started", program.display()))
        .because(why.to_string())
        .help("pip install --force-reinstall nanorun-torch")
}

/// Says what went wrong.
fn failed(error: &Error) -> ExitCode {
    // To stop is what was asked for.
    let what = if is_stop(error) { "" } else { "error: " };
    let code = error.class().exit_code();
    if console::is_json() {
        console::log(&format!("{what}{error}"));
        let fields = json!({
            "what": error.what(),
            "key": error.key_path(),
            "expected": error.expected_text(),
            "help": error.help_text(),
            "text": error.to_string(),
            "exit_code": code,
        });
        console::event("error", fields);
    } else {
        Output::new(false).warn(&format!("{what}{error}"));
    }
    ExitCode::from(code)
}

/// clap knows whether this is help (stdout, 0) or a mistake (stderr, 2).
fn not_understood(error: &clap::Error, given: &[OsString]) -> ExitCode {
    if error.use_stderr() {
        // Programs that watch, and the log, are told of mistakes in the command line too.
        let (log, progress) = args::console_of(given);
        let started = console::start(log.as_deref(), progress);
        let text = error.to_string();
        console::log(&text);
        if started.is_ok() && console::is_json() {
            console::event("error", json!({ "text": text, "exit_code": error.exit_code() }));
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    }
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Carries a command out; the class is that of a failure it has already told about.
fn dispatch(cli: Cli) -> Result<Option<Class>> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Work(args) => work::work(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Submit(args) => submit::submit(&args),
        Command::Status(args) => status::status(&args),
        Command::Cancel(args) => cancel::cancel(&args),
        Command::Resume(args) => resume::resume(&args),
        Command::Sample(args) => sample::sample(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Export(args) => export::export(&args),
        Command::Import(args) => import::import(&args),
        Command::Lock(args) => lock::lock(&args),
        Command::Cache(args) => cache::cache(&args),
        Command::Data(args) => data::data(&args),
        Command::Tokenizer(args) => tokenizer::tokenizer(&args),
        Command::Doctor(args) => {
            doctor::doctor(&args);
            Ok(None)
        }
        Command::Verify(args) => verify::verify(&args),
        Command::Clean(args) => clean::clean(&args),
        Command::Diff(args) => diff::diff(&args),
        Command::Report(args) => report::report(&args),
        Command::Runs(args) => runs::runs(&args),
        Command::Show(args) => show::show(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Watch(args) => watch::watch(&args),
        Command::New(args) => new::new(&args),
        Command::Try(args) => try_out::try_out(&args),
        Command::Ledger(args) => ledger::ledger(&args),
        Command::Completions(args) => {
            completions::completions(&args);
            Ok(None)
        }
        Command::Man(args) => man::man(&args),
        Command::Quickstart(args) => quickstart::quickstart(&args),
        Command::Parity(args) => parity::parity(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Fields(args) => {
            let text = if args.schema {
                format!("{:#}", crate::manifest::json_schema())
            } else {
                crate::manifest::reference_markdown()
            };
            Output::new(false).result(&text);
            Ok(None)
        }
    }
}

/// The experiment that a command names.
fn experiment(manifest: &std::path::Path, common: &Common) -> Result<Experiment> {
    waiting::show_waiting(common.quiet);
    let manifest = Manifest::load(manifest, &options(common))?;
    let told = manifest.selected_cells().next().and_then(|cell| cell.settings.run.threads);
    threads::start(common.threads.map(usize::from).or(told))?;
    Experiment::of(manifest, &common.results)
}

/// What lies over the manifest.
fn options(common: &Common) -> Options {
    Options {
        profile: common.profile.clone(),
        sets: common.sets.clone(),
        only: common.only.clone(),
        env: environment().collect(),
    }
}

/// The same without any of it.
fn plan_options(environment: impl Iterator<Item = (String, String)>) -> Options {
    Options { env: environment.collect(), ..Options::default() }
}

/// The environment's variables, as far as they are text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Threads by `--threads`, else by the manifest's `run.threads`, else as many as there are cores.
fn threads(common: &Common, experiment: &Experiment) -> usize {
    let asked = common.threads.map(usize::from);
    asked.or(experiment.plan.threads).unwrap_or_else(all_threads)
}

/// As many threads as this process may use CPUs.
fn all_threads() -> usize {
    crate::host::usable_cpus()
}
