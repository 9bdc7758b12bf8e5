//! This machine and this process: facts of machine and build, memory held, age. The only place that asks the system
//! for them.

mod company;
mod identity;
mod limits;

use std::fs;

use serde::{Deserialize, Serialize};

pub use company::another_trains;
pub use identity::{Life, ProcessId, life_here};
pub use limits::{LimitFrom, MemoryLimit, available_memory, memory_limit, usable_cpus};

/// Facts about machine and build, recorded beside the results and never hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
// Another version may record other facts.
#[serde(default)]
pub struct HostFacts {
    /// Host name.
    pub host: String,
    /// Operating system and kernel.
    pub os: String,
    /// Instruction set architecture.
    pub arch: String,
    /// The CPU's name.
    pub cpu_model: String,
    /// Its instruction set extensions that the kernels choose by.
    pub cpu_features: Vec<String>,
    /// Logical CPUs that this process may use, see `usable_cpus`.
    pub logical_cpus: usize,
    /// Threads that the run used.
    pub threads: usize,
    /// Main memory of the machine, bytes; `memory_limit` is what a process may have of it.
    pub memory_bytes: Option<u64>,
    /// libtorch's version, where it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libtorch: Option<String>,
    /// The accelerator's name, where one is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// nanorun's version.
    pub nanorun: String,
}

impl HostFacts {
    /// The facts of this process, which computes on `threads` threads.
    pub fn collect(threads: usize) -> Self {
        Self {
            host: host_name(),
            os: os(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu_model: cpu_model(),
            cpu_features: cpu_features(),
            logical_cpus: usable_cpus(),
            threads,
            memory_bytes: memory_bytes(),
            libtorch: None,
            accelerator: None,
            nanorun: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Main memory of the machine, bytes; none where the system does not tell.
pub fn memory_bytes() -> Option<u64> {
    proc_kilobytes("/proc/meminfo", "MemTotal:")
}

/// The most memory this process has held so far, bytes; none where the system does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    proc_kilobytes("/proc/self/status", "VmHWM:")
}

/// The memory this process holds now, bytes; none where the system does not tell.
pub fn rss_bytes() -> Option<u64> {
    proc_kilobytes("/proc/self/status", "VmRSS:")
}

/// Seconds since this process started, to a hundredth; none where the system does not tell.
pub fn process_age_seconds() -> Option<f64> {
    /// Of the times in /proc/PID/stat, on every Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold blanks; the start time is the 22nd.
    let (_, fields) = stat.rsplit_once(')')?;
    let start: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some((uptime - start / TICKS_PER_SECOND).max(0.0))
}

/// The host's name.
pub fn host_name() -> String {
    let read = |path| fs::read_to_string(path).ok().map(|name| name.trim().to_owned());
    read("/proc/sys/kernel/hostname")
        .or_else(|| std::env::var("HOSTNAME").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn os() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, kernel.trim()).trim_end().to_owned()
}

/// The CPU's own name for itself.
pub fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}

fn cpu_features() -> Vec<String> {
    let mut found: Vec<&str> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("sse4.2", is_x86_feature_detected!("sse4.2")),
            ("avx", is_x86_feature_detected!("avx")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ];
        found.extend(known.iter().filter(|(_, there)| *there).map(|(name, _)| name));
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push("neon");
    }
    found.into_iter().map(str::to_owned).collect()
}

/// A value in kB of one of Linux's tables, in bytes.
fn proc_kilobytes(path: &str, label: &str) -> Option<u64> {
    limits::table_kilobytes(&fs::read_to_string(path).ok()?, label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_filled_in() {
        let facts = HostFacts::collect(3);
        assert_eq!(facts.threads, 3);
        assert!(facts.logical_cpus >= 1);
        assert!(!facts.host.is_empty() && !facts.os.is_empty() && !facts.cpu_model.is_empty());
        let back: HostFacts = serde_json::from_str(&serde_json::to_string(&facts).unwrap()).unwrap();
        assert_eq!(back, facts);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_ages() {
        let before = process_age_seconds().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let after = process_age_seconds().unwrap();
        assert!(before < after, "{before} {after}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_no_less_than_what_is_held() {
        let held = rss_bytes().unwrap();
        assert!(held > 1 << 20);
        assert!(peak_rss_bytes().unwrap() >= held);
    }
}
