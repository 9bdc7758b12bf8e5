//! `[cluster]`: many processes on one results directory, and what a scheduler is asked for. None of it is part of a key or
//! of a verdict.

use toml::Value;

use super::super::field::{Fallback, Field, Kind};
use super::{field, int, text};

pub(super) const FIELDS: &[Field] = &[
    field(
        "cluster.beat_seconds",
        Kind::Float(f64::MIN_POSITIVE, 86_400.0),
        "seconds",
        Fallback::Value(|_| Value::Float(30.0)),
        "How often whoever trains a run says that it still does. Others, on other machines, take the run over after three \
         beats missed.",
    ),
    field(
        "cluster.class",
        Kind::Word(&["any", "same"]),
        "",
        Fallback::Value(|_| text("any")),
        "`same` demands one environment class of all runs: a worker of another one takes none.",
    ),
    field(
        "cluster.file",
        Kind::Text,
        "path",
        Fallback::Absent("the manifest says it all"),
        "A TOML file with fields of `[cluster]` for `nanorun submit`, such as one for all experiments of a site: what the \
         manifest says itself counts more. It holds them under `[cluster]` or at its top.",
    ),
    field(
        "cluster.partition",
        Kind::Plain,
        "",
        Fallback::Absent("the scheduler's default"),
        "Partition, or several with commas between them.",
    ),
    field(
        "cluster.account",
        Kind::Plain,
        "",
        Fallback::Absent("the scheduler's default"),
        "Account that is charged.",
    ),
    field("cluster.qos", Kind::Plain, "", Fallback::Absent("the scheduler's default"), "Quality of service."),
    field(
        "cluster.time",
        Kind::TimeLimit,
        "",
        Fallback::Absent("the partition's limit"),
        "Time limit of a job. A run that is not done by then is saved, queued again and carried on.",
    ),
    field(
        "cluster.gpus",
        Kind::Int(0, 64),
        "GPUs",
        Fallback::Absent("none are asked for"),
        "GPUs of a job; a run uses one.",
    ),
    field(
        "cluster.gpu_type",
        Kind::Plain,
        "",
        Fallback::Absent("any"),
        "What the scheduler calls the GPUs that are asked for, such as `a100`.",
    ),
    field(
        "cluster.cpus",
        Kind::Int(1, 1024),
        "CPUs",
        Fallback::Absent("the scheduler's default"),
        "CPUs of a job; it trains with as many threads.",
    ),
    field(
        "cluster.memory",
        Kind::Memory,
        "",
        Fallback::Absent("the scheduler's default"),
        "Memory of a job.",
    ),
    field(
        "cluster.array_limit",
        Kind::Int(1, 1_000_000),
        "jobs",
        Fallback::Absent("as many as there is room for"),
        "How many jobs of an array may run at the same time.",
    ),
    field(
        "cluster.requeue_limit",
        Kind::Int(0, 1000),
        "times",
        Fallback::Value(|_| int(3)),
        "How often a job that its time limit stopped is queued again; what preempts a job or takes its node down does not \
         count.",
    ),
    field(
        "cluster.signal_seconds",
        Kind::Int(0, 65_535),
        "seconds",
        Fallback::Value(|_| int(180)),
        "How long before the end of its allocation a job is asked to stop, so that it can save; 0 leaves the signal out.",
    ),
    field(
        "cluster.srun",
        Kind::Bool,
        "",
        Fallback::Value(|_| Value::Boolean(true)),
        "Whether the worker is a step, started by `srun`; `false` starts it in the batch script itself.",
    ),
    field(
        "cluster.extra",
        Kind::Options,
        "",
        Fallback::Absent("nothing more"),
        "Further options of `sbatch`, a line each, such as `[\"--constraint=h100\", \"--exclusive\"]`.",
    ),
    field(
        "cluster.setup",
        Kind::Texts,
        "",
        Fallback::Absent("nothing"),
        "Lines of shell before the worker starts, as they are, such as `[\"module load cuda\"]`.",
    ),
    field(
        "cluster.cache",
        Kind::Text,
        "path",
        Fallback::Absent("the user's cache"),
        "Directory on the node for the token cache. Variables of the job in it, such as `$SLURM_TMPDIR`, are put in on the node.",
    ),
    field(
        "cluster.split",
        Kind::Int(2, 1_000_000),
        "runs",
        Fallback::Value(|_| int(8)),
        "From how many runs on a tree of runs that share a beginning is not one job: its trunk is one, and every fork, which \
         waits for it, another.",
    ),
];
