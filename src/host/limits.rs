//! What this process may hold of the machine: the smallest of the machine, its control groups and its own limits.
//!
//! A container is a control group: `/proc/meminfo` tells there of the machine, the group's files of what the kernel
//! lets the processes in it have. Both kinds of hierarchy are read: version 2 (`memory.max`, `cpu.max`) and version 1
//! (`memory.limit_in_bytes`, `cpu.cfs_quota_us`), as described in the kernel's `Documentation/admin-guide/cgroup-v2.rst`
//! and `cgroup-v1/`. A limit of any group above the process's own holds too, so the path is walked up to the root of
//! what is mounted here.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The most memory this process may hold, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryLimit {
    /// Bytes.
    pub bytes: u64,
    /// Whose limit it is.
    pub from: LimitFrom,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitFrom {
    /// The machine has no more.
    Machine,
    /// A control group of the process: a container, a batch job, a service.
    ControlGroup,
    /// The process's own limit of address space, `ulimit -v`.
    AddressSpace,
}

impl fmt::Display for LimitFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "this machine",
            Self::ControlGroup => "this container or job (its control group)",
            Self::AddressSpace => "this process (ulimit -v)",
        })
    }
}

/// The most memory this process may hold: the smallest of the machine's, every control group's around it and its own
/// limit of address space. None where the system does not tell.
pub fn memory_limit() -> Option<MemoryLimit> {
    memory_limit_in(&Tree::real())
}

/// Memory that this process can still get, bytes: what the machine has available without swapping (`MemAvailable`), or
/// what a control group around the process has left, where that is less. None where the system does not tell.
pub fn available_memory() -> Option<u64> {
    available_memory_in(&Tree::real())
}

/// Threads that make sense here: CPUs that this process may run on, fewer where a control group grants less time than
/// that. 1 at least.
pub fn usable_cpus() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    cpu_quota(&Tree::real()).map_or(allowed, |quota| allowed.min(quota)).max(1)
}

/// The files of the system, under another root in tests.
struct Tree(PathBuf);

impl Tree {
    fn real() -> Self {
        Self(PathBuf::from("/"))
    }

    /// The text of a file, by its absolute path.
    fn text(&self, path: &Path) -> Option<String> {
        crate::system::kernel_text(&self.0.join(path.strip_prefix("/").unwrap_or(path)))
    }
}

fn memory_limit_in(tree: &Tree) -> Option<MemoryLimit> {
    let machine = table_kilobytes(&tree.text(Path::new("/proc/meminfo"))?, "MemTotal:")?;
    let group = groups(tree, "memory").filter_map(|group| group.memory(tree)).min();
    let own = address_space(tree);
    // Of equals the first: a group that is as large as the machine limits nothing.
    [
        Some((machine, LimitFrom::Machine)),
        group.map(|bytes| (bytes, LimitFrom::ControlGroup)),
        own.map(|bytes| (bytes, LimitFrom::AddressSpace)),
    ]
    .into_iter()
    .flatten()
    .min_by_key(|(bytes, _)| *bytes)
    .map(|(bytes, from)| MemoryLimit { bytes, from })
}

fn available_memory_in(tree: &Tree) -> Option<u64> {
    let machine = table_kilobytes(&tree.text(Path::new("/proc/meminfo"))?, "MemAvailable:")?;
    let groups = groups(tree, "memory").filter_map(|group| group.memory_left(tree));
    Some(groups.chain([machine]).chain(address_space(tree)).min().unwrap_or(machine))
}

/// Whole CPUs of time that the groups grant, rounded up; none where none of them limits it.
fn cpu_quota(tree: &Tree) -> Option<usize> {
    groups(tree, "cpu").filter_map(|group| group.cpus(tree)).min()
}

/// A limit of address space, in bytes. `/proc/self/limits` has a column each for name, soft and hard limit and unit.
fn address_space(tree: &Tree) -> Option<u64> {
    let limits = tree.text(Path::new("/proc/self/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A value in kB of one of Linux's tables, in bytes.
pub(super) fn table_kilobytes(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A control group as its files show it.
struct Group {
    dir: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// Its own limit of memory, in bytes.
    fn memory(&self, tree: &Tree) -> Option<u64> {
        let name = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        // "max", and in version 1 a number of 63 bits, is no limit; the latter loses against the machine.
        tree.text(&self.dir.join(name))?.trim().parse().ok()
    }

    /// What its limit leaves, in bytes: pages of files that it holds can be dropped for others.
    fn memory_left(&self, tree: &Tree) -> Option<u64> {
        let limit = self.memory(tree)?;
        let name = match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        };
        let used: u64 = tree.text(&self.dir.join(name))?.trim().parse().ok()?;
        let stat = tree.text(&self.dir.join("memory.stat")).unwrap_or_default();
        let pages = |name: &str| {
            let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let files = pages("inactive_file") + pages("active_file");
        Some(limit.saturating_sub(used.saturating_sub(files)))
    }

    /// Its own limit of CPU time, in whole CPUs.
    fn cpus(&self, tree: &Tree) -> Option<usize> {
        let number = |name: &str| tree.text(&self.dir.join(name))?.trim().parse::<u64>().ok();
        let (quota, period) = match self.version {
            // -1 is no limit.
            Version::One => (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?),
            Version::Two => {
                let text = tree.text(&self.dir.join("cpu.max"))?;
                let mut parts = text.split_whitespace();
                (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)
            }
        };
        (period > 0).then(|| quota.div_ceil(period).max(1) as usize)
    }

    /// Whether it limits the groups below it too: in version 1 a memory group may count its own processes alone.
    fn holds_below(&self, tree: &Tree) -> bool {
        let text = tree.text(&self.dir.join("memory.use_hierarchy"));
        self.version == Version::Two || text.is_none_or(|text| text.trim() != "0")
    }
}

/// The groups that limit this process in a controller: its own and those above it, in either version.
fn groups(tree: &Tree, controller: &str) -> impl Iterator<Item = Group> {
    let own = tree.text(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mounts = tree.text(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let mut found = Vec::new();
    for line in own.lines() {
        // ID:CONTROLLERS:PATH, where version 2 has the ID 0 and no controllers.
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let version = if id == "0" && controllers.is_empty() {
            Version::Two
        } else if controllers.split(',').any(|name| name == controller) {
            Version::One
        } else {
            continue;
        };
        for mount in mounts.lines().filter_map(|line| Mount::parse(line, version, controller)) {
            let mut dirs = mount.upwards(Path::new(path)).map(|dir| Group { dir, version });
            found.extend(dirs.next());
            found.extend(dirs.take_while(|above| above.holds_below(tree)));
        }
    }
    found.into_iter()
}

/// Where a hierarchy of groups is seen.
struct Mount {
    /// The group that is seen at the mount point.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Of a line of `mountinfo` (proc_pid_mountinfo(5)): `ID PARENT DEVICE ROOT POINT OPTIONS ... - TYPE SOURCE SUPER`.
    fn parse(line: &str, version: Version, controller: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split_whitespace();
        let (name, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
        let fits = match version {
            Version::One => name == "cgroup" && options.split(',').any(|option| option == controller),
            Version::Two => name == "cgroup2",
        };
        let mut place = place.split_whitespace().skip(3);
        let (root, point) = (place.next()?, place.next()?);
        fits.then(|| Self { root: unescaped(root).into(), point: unescaped(point).into() })
    }

    /// The directories of the group `path` and of all above it, as far as they are seen here, the own one first.
    fn upwards(&self, path: &Path) -> impl Iterator<Item = PathBuf> {
        // A container that sees its own group alone has it at the mount point, whatever its path is elsewhere.
        let inside = path.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let climbs = inside.components().any(|part| part == std::path::Component::ParentDir);
        let inside = if climbs { Path::new("") } else { inside };
        let dirs: Vec<PathBuf> = inside.ancestors().map(|part| self.point.join(part)).collect();
        dirs.into_iter()
    }
}

/// `mountinfo` writes blanks and backslashes as three octal digits.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A tree of these files under a root of its own.
    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let tree = Tree(dir.path().to_owned());
        (dir, tree)
    }

    const MACHINE: (&str, &str) = ("/proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

    #[track_caller]
    fn memory(files: &[(&str, &str)], mebibytes: u64, from: LimitFrom) {
        let (_dir, tree) = tree(&[&[MACHINE], files].concat());
        assert_eq!(memory_limit_in(&tree), Some(MemoryLimit { bytes: mebibytes * MIB, from }));
    }

    #[test]
    fn containers_memory_is_the_smallest_of_machine_and_own_cgroup() {
        memory(&[], 8192, LimitFrom::Machine);
        // Version 2: own group, a group above it, none that limits, one that is larger than the machine.
        let own = ("/proc/self/cgroup", "0::/system.slice/job.scope\n");
        let mount = ("/proc/self/mountinfo", V2);
        let job = "/sys/fs/cgroup/system.slice/job.scope/memory.max";
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        memory(&[own, mount, (job, "1073741824\n")], 1024, LimitFrom::ControlGroup);
        memory(&[own, mount, (job, "1073741824\n"), (slice, "536870912\n")], 512, LimitFrom::ControlGroup);
        memory(&[own, mount, (job, "max\n"), (slice, "536870912\n")], 512, LimitFrom::ControlGroup);
        memory(&[own, mount, (job, "max\n"), (slice, "max\n")], 8192, LimitFrom::Machine);
        memory(&[own, mount, (job, "99999999999999\n")], 8192, LimitFrom::Machine);
        // Somebody else's group is nobody's business.
        memory(
            &[own, mount, ("/sys/fs/cgroup/system.slice/other/memory.max", "4096\n")],
            8192,
            LimitFrom::Machine,
        );
    }

    #[test]
    fn containers_of_version_one_are_walked_up_too() {
        let own =
            ("/proc/self/cgroup", "4:cpu,cpuacct:/\n3:memory:/docker/abc/job\n1:name=systemd:/x\n0::/\n");
        let mount = ("/proc/self/mountinfo", V1);
        let file = |group: &str| format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes");
        let (root, docker, abc, job) =
            (file(""), file("/docker"), file("/docker/abc"), file("/docker/abc/job"));
        let unlimited = "9223372036854771712\n";
        memory(&[own, mount, (&root, unlimited), (&job, unlimited)], 8192, LimitFrom::Machine);
        memory(&[own, mount, (&root, unlimited), (&job, "2147483648\n")], 2048, LimitFrom::ControlGroup);
        memory(&[own, mount, (&abc, "1073741824\n"), (&job, unlimited)], 1024, LimitFrom::ControlGroup);
        // A group that counts its own processes alone limits none below it, and neither does what is above it.
        let alone = ("/sys/fs/cgroup/memory/docker/abc/memory.use_hierarchy", "0\n");
        let files = [own, mount, alone, (&abc, "1073741824\n"), (&docker, "4096\n")];
        memory(&files, 8192, LimitFrom::Machine);
    }

    #[test]
    fn a_container_that_sees_only_its_own_group_has_it_at_the_mount_point() {
        let limit = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
        // The path is the machine's, the mount shows that group.
        let mount = V1.replace("0:32 / ", "0:32 /docker/abc ");
        let own = ("/proc/self/cgroup", "3:memory:/docker/abc\n");
        memory(&[own, ("/proc/self/mountinfo", &mount), limit], 1024, LimitFrom::ControlGroup);
        // The path is the machine's, and so is nothing of the mount.
        memory(&[own, ("/proc/self/mountinfo", V1), limit], 1024, LimitFrom::ControlGroup);
        // A namespace of groups, entered from outside.
        let own = ("/proc/self/cgroup", "0::/../../other\n");
        let limit = ("/sys/fs/cgroup/memory.max", "1073741824\n");
        memory(&[own, ("/proc/self/mountinfo", V2), limit], 1024, LimitFrom::ControlGroup);
    }

    #[test]
    fn a_limit_of_address_space_counts() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max address space         1073741824           unlimited            bytes     \n";
        memory(&[("/proc/self/limits", limits)], 1024, LimitFrom::AddressSpace);
        let limits = limits.replace("1073741824", "unlimited ");
        memory(&[("/proc/self/limits", &limits)], 8192, LimitFrom::Machine);
    }

    #[test]
    fn containers_with_a_share_of_the_cpus_get_as_many_threads() {
        let cpus = |files: &[(&str, &str)]| cpu_quota(&tree(files).1);
        assert_eq!(cpus(&[]), None);
        let own = ("/proc/self/cgroup", "0::/a/b\n");
        let mount = ("/proc/self/mountinfo", V2);
        let max = |text| ("/sys/fs/cgroup/a/b/cpu.max", text);
        assert_eq!(cpus(&[own, mount, max("max 100000\n")]), None);
        assert_eq!(cpus(&[own, mount, max("200000 100000\n")]), Some(2));
        assert_eq!(cpus(&[own, mount, max("250000 100000\n")]), Some(3));
        assert_eq!(cpus(&[own, mount, max("1000 100000\n")]), Some(1));
        let above = ("/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
        assert_eq!(cpus(&[own, mount, above, max("400000 100000\n")]), Some(1));
        let own = ("/proc/self/cgroup", "4:cpu,cpuacct:/a\n");
        let mount = ("/proc/self/mountinfo", V1);
        let quota = |text| ("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", text);
        let period = ("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "50000\n");
        assert_eq!(cpus(&[own, mount, period, quota("-1\n")]), None);
        assert_eq!(cpus(&[own, mount, period, quota("200000\n")]), Some(4));
    }

    #[test]
    fn nonsense_limits_nothing() {
        for text in ["", "\n", "::\n", "0::\n", "3:memory\n", "0::relative/../..\n"] {
            let own = ("/proc/self/cgroup", text);
            memory(&[own, ("/proc/self/mountinfo", " - \n - cgroup2\n1 2 3\n")], 8192, LimitFrom::Machine);
        }
        assert_eq!(memory_limit_in(&tree(&[]).1), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_limits() {
        let limit = memory_limit().unwrap();
        assert!(limit.bytes > 1 << 20 && limit.bytes <= super::super::memory_bytes().unwrap());
        assert!(usable_cpus() >= 1);
    }
}
