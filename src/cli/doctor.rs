//! `nanorun doctor`: what this machine has, what works, and how to get what does not.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::backend::cpu::environment_class;
use crate::backend::torch::device::{BF16_CAPABILITY, TorchDevice, check};
use crate::backend::torch::facts::{Missing, torch_facts};
use crate::backend::torch::peak::peak_flops;
use crate::data::Cache;
use crate::error::Error;
use crate::files::{Answer, FileSystemFacts, Files, file_system_facts};
use crate::host::{HostFacts, LimitFrom, memory_limit};
use crate::precision::Precision;

use super::all_threads;
use super::args::DoctorArgs;
use super::output::Output;

const GET_TORCH: &str = "eval \"$(scripts/setup_libtorch)\" && cargo build --release --features tch   (gets libtorch and builds with it; a wheel: pip install \"nanorun[torch]\", nanorun-torch doctor)";

/// Prints the findings; nothing found is an error.
pub(super) fn doctor(args: &DoctorArgs) {
    let host = HostFacts::collect(all_threads());
    let limit = memory_limit();
    let cache = cache();
    let results = results(&args.results);
    let torch = torch();
    let output = Output::new(false);
    if args.json {
        let json = json!({
            "host": host,
            "memory_limit": limit,
            "environment_class": environment_class(Precision::F32),
            "environment_class_bf16": environment_class(Precision::Bf16),
            "backends": { "cpu": { "works": true }, "scalar": { "works": true }, "tch": torch },
            "cache": cache,
            "results": results,
        });
        output.result(&json.to_string());
        return;
    }
    let mut memory = host.memory_bytes.map_or_else(|| "unknown".to_owned(), gib);
    if let Some(limit) = limit.filter(|limit| limit.from != LimitFrom::Machine) {
        let _ = write!(memory, ", of which {} may be held: the limit of {}", gib(limit.bytes), limit.from);
    }
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("nanorun", &host.nanorun);
    line("system", &format!("{}, {}", host.os, host.arch));
    line("CPU", &host.cpu_model);
    line("features", &host.cpu_features.join(" "));
    line("cores", &host.logical_cpus.to_string());
    line("memory", &memory);
    line("class", &format!("{} (equal result hashes within it)", environment_class(Precision::F32)));
    line("in bf16", &format!("{} (likewise)", environment_class(Precision::Bf16)));
    line("cpu", "works");
    line("scalar", "works");
    line("tch", &summary(&torch));
    line("cache", &summary(&cache));
    line("results", &summary(&results));
    output.result(&text);
}

const GIB: f64 = 1_073_741_824.0;

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / GIB)
}

/// The sentence of a finding.
fn summary(finding: &Value) -> String {
    finding.get("summary").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn torch() -> Value {
    let facts = match torch_facts() {
        Ok(facts) => facts,
        Err(Missing::NotBuilt) => {
            let summary = format!("not built into this binary\n{:12}{GET_TORCH}", "");
            return json!({ "works": false, "reason": "not built", "help": GET_TORCH, "summary": summary });
        }
        Err(Missing::Start(reason)) => {
            let summary = format!("does not start: {reason}");
            return json!({ "works": false, "reason": reason, "help": GET_TORCH, "summary": summary });
        }
    };
    if let Err(error) = check(TorchDevice::Cpu, false, super::all_threads()) {
        let error = Error::from(error);
        let (expected, help) =
            (error.expected_text().unwrap_or_default(), error.help_text().unwrap_or_default());
        let summary = format!("does not work: {}\n{1:12}expected {expected}\n{1:12}{help}", error.what(), "");
        return json!({ "works": false, "reason": error.what(), "help": help, "summary": summary });
    }
    let mut summary =
        format!("works: libtorch {} ({}), {}", facts.version, facts.cpu_capability, facts.library);
    let cuda = match facts.cuda {
        Ok(cuda) => {
            let mut devices = Vec::new();
            for (index, gpu) in cuda.devices.iter().enumerate() {
                let bf16 = if gpu.capability < BF16_CAPABILITY { "f32 only" } else { "f32 and bf16" };
                let remarks = try_device(index, gpu.capability >= BF16_CAPABILITY);
                devices.push(json!({
                    "name": gpu.name,
                    "memory_bytes": gpu.memory,
                    "capability": gpu.capability,
                    "remarks": remarks,
                }));
                let peak = peak_flops(&gpu.name, Precision::Bf16).map_or_else(String::new, |peak| {
                    format!(", {:.0} TFLOP/s in bf16 by its data sheet", peak / 1e12)
                });
                let _ = write!(
                    summary,
                    "\n{:12}cuda:{index} {}, {:.0} GiB, compute capability {}.{}: {bf16}{peak}",
                    "",
                    gpu.name,
                    gpu.memory as f64 / GIB,
                    gpu.capability / 10,
                    gpu.capability % 10,
                );
                for remark in remarks {
                    let _ = write!(summary, "\n{:14}{remark}", "");
                }
            }
            let _ = write!(summary, "\n{:12}the driver serves CUDA {}", "", cuda.driver);
            json!({ "driver": cuda.driver, "devices": devices })
        }
        Err(reason) => {
            let _ = write!(summary, "\n{:12}no GPU: {reason}", "");
            json!({ "reason": reason })
        }
    };
    json!({ "works": true, "libtorch": facts.version, "library": facts.library, "cuda": cuda, "summary": summary })
}

/// Computes a little on a GPU. -> what does not work there, and what only in a slow way
fn try_device(index: usize, bf16: bool) -> Vec<String> {
    #[cfg(feature = "tch")]
    {
        use crate::backend::torch::TorchBackend;
        use crate::ops::Backend;

        let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
        match TorchBackend::new(TorchDevice::Cuda(index), precision, 1) {
            Ok(backend) => backend.hardware().fallbacks,
            Err(error) => vec![format!("does not work: {error}")],
        }
    }
    #[cfg(not(feature = "tch"))]
    {
        let _ = (index, bf16);
        Vec::new()
    }
}

fn cache() -> Value {
    let cache = match Cache::from_env() {
        Ok(cache) => cache,
        Err(error) => return json!({ "path": null, "writable": false, "summary": error.to_string() }),
    };
    match cache.root() {
        Some(root) => writable(root),
        None => json!({
            "path": null,
            "writable": false,
            "summary": "none: neither NANORUN_CACHE nor HOME is set, so tokens are made anew every time",
        }),
    }
}

/// Whether files can be written in a directory, or if it is not there yet, where it would be made. Leaves nothing.
fn writable(path: &Path) -> Value {
    let here = path.exists();
    let (works, summary) = match Files::new().check_writable(&existing(path)) {
        Ok(()) if here => (true, format!("{} can be written", path.display())),
        Ok(()) => (true, format!("{} is not there yet and can be made", path.display())),
        Err(error) => (false, format!("{} cannot be written: {error}", path.display())),
    };
    json!({ "path": path, "exists": here, "writable": works, "summary": summary })
}

/// The directory itself, or the one above it that is there.
fn existing(path: &Path) -> PathBuf {
    let existing = path.ancestors().find(|ancestor| ancestor.exists() && !ancestor.as_os_str().is_empty());
    existing.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Whether results can be written there, and what the file system does not promise.
fn results(path: &Path) -> Value {
    let mut found = writable(path);
    if found["writable"] != Value::Bool(true) {
        return found;
    }
    let Ok(facts) = file_system_facts(&existing(path)) else { return found };
    let mut summary = summary(&found);
    for remark in remarks(&facts) {
        let _ = write!(summary, "\n{:12}{remark}", "");
    }
    found["summary"] = json!(summary);
    found["file_system"] = json!(facts);
    found
}

/// What a person should know of a file system before results are written there.
fn remarks(facts: &FileSystemFacts) -> Vec<String> {
    let mut remarks = Vec::new();
    if let (Some(free), Some(total)) = (facts.free_bytes, facts.total_bytes) {
        let quota = "a quota may allow less and shows when it is reached";
        remarks.push(format!("{} free of {}; {quota}", gib(free), gib(total)));
    }
    let mut without = |answer: &Answer, what: &str, then: &str| {
        if !answer.works {
            let answer = answer.answer.as_deref().unwrap_or("no");
            remarks.push(format!("{what} ({answer}): {then}"));
        }
    };
    without(
        &facts.locks,
        "files cannot be locked",
        "experiments do without; downloads are guarded by a file, which after a crash on another machine a person has to remove",
    );
    without(
        &facts.directory_sync,
        "directories cannot be synced",
        "after a power cut the newest files may be missing; a kill or a crash loses nothing",
    );
    without(
        &facts.file_sync,
        "files cannot be synced",
        "after a power cut the newest ones may be torn; a kill or a crash loses nothing",
    );
    without(
        &facts.file_rename,
        "files cannot be replaced",
        "results cannot be written there: choose another place",
    );
    without(
        &facts.directory_rename,
        "directories cannot be renamed as they should",
        "checkpoints cannot be written there safely: choose another place",
    );
    if let Some(ahead) = facts.clock_ahead_seconds.filter(|ahead| ahead.unsigned_abs() > 2) {
        let seconds = ahead.unsigned_abs();
        let how = if ahead > 0 { "ahead of" } else { "behind" };
        remarks.push(format!("its clock is {seconds} s {how} this machine's: nothing depends on it"));
    }
    remarks
}
