//! Which process wrote something, and whether it still lives.
//!
//! A process id alone says little: it comes again, it is another process on another machine, after a restart or in
//! another container. With the boot, the namespace of process ids and the moment at which the process began it names one
//! process. Of a process of this boot and namespace it can be told whether it lives; of any other it cannot.

use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::host_name;
use crate::hash::Digest;
use crate::system;

/// The namespace of process ids of a machine that runs no container: its inode is fixed in the kernel
/// (`PROC_PID_INIT_INO`).
const INITIAL_NAMESPACE: &str = "pid:[4026531836]";

/// A process, told apart from every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The host's name.
    pub host: String,
    /// A digest of the machine's own id; empty where it has none.
    #[serde(default)]
    pub machine: String,
    /// The kernel's id of this boot; empty where the system has none, and then nothing can be told of the process.
    #[serde(default)]
    pub boot: String,
    /// The namespace of its process id.
    #[serde(default)]
    pub namespace: String,
    /// Its process id.
    pub pid: u32,
    /// When it began, in clock ticks since the boot.
    #[serde(default)]
    pub began: u64,
}

/// What is known of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs, or is this one.
    Alive,
    /// It is provably gone.
    Dead,
    /// It is of another host, boot or container: nobody here can tell.
    Unknown,
}

impl ProcessId {
    /// This process.
    pub fn own() -> &'static Self {
        static OWN: OnceLock<ProcessId> = OnceLock::new();
        OWN.get_or_init(|| {
            let pid = std::process::id();
            let line = |path| {
                system::kernel_text(Path::new(path)).map(|text| text.trim().to_owned()).unwrap_or_default()
            };
            let machine = line("/etc/machine-id");
            Self {
                host: host_name(),
                // The id itself is not to be handed around (machine-id(5)).
                machine: if machine.is_empty() { machine } else { short("nanorun machine", &[&machine]) },
                boot: line("/proc/sys/kernel/random/boot_id"),
                namespace: system::kernel_link(Path::new("/proc/self/ns/pid")).unwrap_or_default(),
                pid,
                began: began(pid).unwrap_or_default(),
            }
        })
    }

    /// Where its process id counts, in 12 hex digits; equal for all processes of a boot and namespace.
    pub fn place(&self) -> String {
        short("nanorun place", &[&self.boot, &self.namespace])
    }

    /// Whether it lives, as far as this process can tell.
    pub fn life(&self) -> Life {
        let own = Self::own();
        if self.boot.is_empty() || self.namespace.is_empty() {
            return Life::Unknown;
        }
        if self.boot == own.boot && self.namespace == own.namespace {
            return life_here(self.pid, self.began);
        }
        // A machine runs one boot at a time. Containers do not count: they may share a name and an image's machine id.
        let bare = [self, own].iter().all(|process| process.namespace == INITIAL_NAMESPACE);
        let restarted = bare
            && !self.machine.is_empty()
            && (&self.machine, &self.host) == (&own.machine, &own.host)
            && self.boot != own.boot;
        if restarted { Life::Dead } else { Life::Unknown }
    }
}

/// Whether the process `pid` of this boot and namespace that began at `began` lives.
pub fn life_here(pid: u32, began: u64) -> Life {
    if (pid, began) == (ProcessId::own().pid, ProcessId::own().began) {
        return Life::Alive;
    }
    match state(pid) {
        // Of another beginning: the id came again. `Z` and `X` have ended and wait to be asked how: they write nothing.
        Some((letter, found)) if found == began && !b"ZXx".contains(&letter) => Life::Alive,
        // Hidden from other users.
        None if system::process_exists(pid) => Life::Alive,
        _ => Life::Dead,
    }
}

/// State letter and beginning of a process, from `/proc/PID/stat`; none where that cannot be read.
fn state(pid: u32) -> Option<(u8, u64)> {
    let stat = system::kernel_text(Path::new(&format!("/proc/{pid}/stat")))?;
    // The second field is a name in parentheses, which may hold blanks; the start time is the 22nd.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn began(pid: u32) -> Option<u64> {
    state(pid).map(|(_, began)| began)
}

/// 12 hex digits that stand for these texts.
fn short(domain: &str, texts: &[&str]) -> String {
    let mut bytes = domain.as_bytes().to_vec();
    for text in texts {
        bytes.push(0);
        bytes.extend_from_slice(text.as_bytes());
    }
    Digest::of(&bytes).short()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_lives_and_says_where() {
        let own = ProcessId::own();
        assert_eq!(own.life(), Life::Alive);
        assert!(!own.boot.is_empty() && own.namespace.starts_with("pid:[") && own.began > 0, "{own:?}");
        assert_eq!(own.place().len(), 12);
        let text = serde_json::to_string(own).unwrap();
        assert_eq!(&serde_json::from_str::<ProcessId>(&text).unwrap(), own);
    }

    #[test]
    fn a_process_dies_once() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let id = ProcessId { pid: child.id(), began: began(child.id()).unwrap(), ..ProcessId::own().clone() };
        assert_eq!(id.life(), Life::Alive);
        // The same number, another process.
        assert_eq!(ProcessId { began: id.began - 1, ..id.clone() }.life(), Life::Dead);
        child.kill().unwrap();
        // Not waited for yet: what is left of it writes nothing.
        let ended = (0..2000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            id.life() == Life::Dead
        });
        assert!(ended);
        child.wait().unwrap();
        assert_eq!(id.life(), Life::Dead);
    }

    #[test]
    fn of_elsewhere_nothing_is_known_but_of_an_earlier_boot_of_this_machine() {
        let own = ProcessId::own();
        let other = |boot: &str, namespace: &str, machine: &str, host: &str| ProcessId {
            boot: boot.to_owned(),
            namespace: namespace.to_owned(),
            machine: machine.to_owned(),
            host: host.to_owned(),
            ..own.clone()
        };
        assert_eq!(other(&own.boot, "pid:[1]", &own.machine, &own.host).life(), Life::Unknown);
        assert_eq!(other("", "", "", &own.host).life(), Life::Unknown);
        assert_eq!(other("another", INITIAL_NAMESPACE, "another", &own.host).life(), Life::Unknown);
        assert_eq!(other("another", INITIAL_NAMESPACE, &own.machine, "another").life(), Life::Unknown);
        let earlier = other("another", INITIAL_NAMESPACE, &own.machine, &own.host).life();
        let told = own.namespace == INITIAL_NAMESPACE && !own.machine.is_empty();
        assert_eq!(earlier, if told { Life::Dead } else { Life::Unknown });
    }
}
