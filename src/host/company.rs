//! Which other processes of this host compute just now.

use std::fs;
use std::path::Path;

/// Whether another process of this host has a thread of this name: nanorun gives one to every process that trains. On a
/// system that does not show its processes, and for those of other containers, nobody can tell, and the answer is no.
pub fn another_trains(thread: &str) -> bool {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let name = process.file_name();
        let is_process = name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        is_process && *name != *own && has_thread(&process.path(), thread)
    })
}

fn has_thread(process: &Path, thread: &str) -> bool {
    // Few processes are nanorun: of the others the first look is the last.
    let name = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let program = fs::read_link(process.join("exe")).ok();
    let own = std::env::current_exe().ok();
    let is_alike = match (&program, &own) {
        (Some(program), Some(own)) => program.file_name() == own.file_name(),
        // Those of other users are not shown.
        _ => name(&process.join("comm")).starts_with("nanorun"),
    };
    is_alike
        && fs::read_dir(process.join("task")).is_ok_and(|mut tasks| {
            tasks.any(|task| task.is_ok_and(|task| name(&task.path().join("comm")).trim_end() == thread))
        })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_found_by_its_name() {
        let stop = std::sync::Arc::new(std::sync::Barrier::new(2));
        let waits = std::sync::Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("nanorun-looked-f".to_owned());
        let thread = thread.spawn(move || waits.wait()).unwrap();
        let own = Path::new("/proc").join(std::process::id().to_string());
        // The kernel keeps 15 bytes of a name.
        assert!(has_thread(&own, "nanorun-looked-"));
        assert!(!has_thread(&own, "nobody-has-this"));
        stop.wait();
        thread.join().unwrap();
        // This process does not count, whatever its threads are called.
        assert!(!another_trains("nobody-has-this"));
    }
}
