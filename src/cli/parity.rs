//! `nanorun parity`: upstream's own numbers against a backend.

use std::path::PathBuf;

use crate::error::{Class, Error, Result};
use crate::parity::{
    Case, CaseReport, Compared, EngineSubject, config_of, discover, markdown, run_case, text,
};
use crate::plan::run_config::{BackendChoice, BackendKind};
use crate::precision::Precision;

use super::all_threads;
use super::args::ParityArgs;
use super::output::Output;
use super::threads;

/// Where the project keeps its cases.
const OWN_CASES: [&str; 2] = ["tests/fixtures/parity", "tests/fixtures/parity_shapes"];

/// And those of upstream's bf16.
const OWN_BF16_CASES: &str = "tests/fixtures/parity_bf16";

/// Exits 3 where a backend could not finish a case (the scalar oracle's tape has a limit), 5 where a number is beyond
/// its tolerance.
pub(super) fn parity(args: &ParityArgs) -> Result<Option<Class>> {
    let output = Output::new(false);
    let backend = backend(args)?;
    // Every file is read before the first case runs: bad input shows at once.
    let cases = directories(args, backend.precision)?
        .iter()
        .map(|path| Case::read(path))
        .collect::<Result<Vec<_>>>()?;
    let configs = cases.iter().map(config_of).collect::<Result<Vec<_>>>()?;
    cases.iter().try_for_each(|case| Compared::of(backend.precision, case).map(drop))?;
    threads::start(args.threads.map(usize::from))?;
    let mut reports = Vec::with_capacity(cases.len());
    for (case, config) in cases.iter().zip(configs) {
        let mut subject = EngineSubject::new(
            config.clone(),
            backend.clone(),
            args.threads.map_or_else(all_threads, usize::from),
        )?;
        reports.push(run_case(case, &config, &mut subject)?);
    }
    output.result(&if args.json {
        serde_json::to_string_pretty(&reports)
            .map_err(|cause| Error::internal("the report cannot be written as JSON").because(cause))?
    } else if args.markdown {
        markdown(&reports)
    } else {
        text(&reports)
    });
    if reports.iter().any(|report| report.error.is_some()) {
        return Ok(Some(Class::Run));
    }
    Ok(reports.iter().any(CaseReport::beyond_tolerance).then_some(Class::Verdict))
}

fn directories(args: &ParityArgs, precision: Precision) -> Result<Vec<PathBuf>> {
    if !args.cases.is_empty() {
        return discover(&args.cases);
    }
    let bf16 = (precision == Precision::Bf16).then_some(OWN_BF16_CASES);
    let own: Vec<PathBuf> = OWN_CASES.into_iter().chain(bf16).map(PathBuf::from).collect();
    if let Some(missing) = own.iter().find(|directory| !directory.is_dir()) {
        return Err(Error::input("the project's parity cases are not here")
            .file(missing)
            .help("run this in the repository's root, or name directories of cases"));
    }
    discover(&own)
}

fn backend(args: &ParityArgs) -> Result<BackendChoice> {
    let kind = match args.backend.as_str() {
        "cpu" => BackendKind::Cpu,
        "tch" => BackendKind::Tch,
        "scalar" => BackendKind::Scalar,
        other => {
            return Err(Error::input(format!("unknown backend `{other}`"))
                .key("--backend")
                .expected("cpu, tch or scalar"));
        }
    };
    let precision = match (args.precision.as_str(), kind) {
        ("f32", _) => Precision::F32,
        ("bf16", BackendKind::Cpu | BackendKind::Tch) => Precision::Bf16,
        (other, _) => {
            let expected = if kind == BackendKind::Scalar { "f32: it is the oracle" } else { "f32 or bf16" };
            return Err(Error::input(format!("{} does not compute in `{other}`", args.backend))
                .key("--precision")
                .expected(expected));
        }
    };
    Ok(BackendChoice { kind, device: args.device.clone(), precision })
}
