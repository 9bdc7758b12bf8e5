//! The tables of an experiment.

use super::column::table;

table! {
    RunRow, "runs.parquet", "One row a run of the plan, then the runs that it no longer has.",
    experiment: String, "", exact, "name of the experiment";
    arm: String, "", exact, "the cell without its seed, as `key=value` pairs";
    seed: u64, "", exact, "seed of the initial weights";
    run_key: String, "", exact, "identity of everything that decides the numbers";
    status: String, "", exact, "`finished`, `diverged`, `failed`, `damaged`, `interrupted`, `planned` or `not needed` (a look decided before it was trained); `retired` where the manifest no longer has it";
    reason: Option<String>, "", exact, "why it is not finished, or what else is to be known of it";
    commit: String, "", exact, "pinned upstream commit";
    backend: String, "", exact, "`cpu`, `tch` or `scalar`";
    device: String, "", exact, "device of the backend";
    precision: String, "", exact, "compute precision";
    environment_class: String, "", exact, "class within which bits are promised";
    numerics_version: u64, "", exact, "version of the engine's numerics";
    parameters: u64, "", exact, "parameters of the model";
    steps: u64, "steps", exact, "optimizer steps of the run";
    steps_done: u64, "steps", exact, "optimizer steps done";
    tokens: u64, "tokens", exact, "tokens trained on, over the steps done";
    flops_per_token: f64, "FLOP", exact, "by upstream's formula";
    train_epochs: Option<f64>, "", exact, "times that the run reads its training text, as planned";
    eval_epochs: Option<f64>, "", exact, "times that an evaluation reads the validation split, as planned";
    final_loss: Option<f32>, "nats/token", exact, "mean loss of the last step";
    val_bpb: Option<f64>, "bits/byte", exact, "final validation";
    best_val_bpb: Option<f64>, "bits/byte", exact, "lowest of all validations";
    train_hash: Option<String>, "", exact, "hash over losses and final parameters";
    eval_hash: Option<String>, "", exact, "hash over the final evaluation";
    result_hash: Option<String>, "", exact, "hash over both";
    shared_steps: u64, "steps", measured, "steps trained as part of another run";
    resumes: u64, "", measured, "how often it was resumed";
    alone: bool, "", measured, "whether all its steps were trained with no other run beside them";
    threads: u64, "", measured, "threads it used";
    train_seconds: f64, "s", measured, "wall time in training steps";
    eval_seconds: f64, "s", measured, "wall time in evaluations";
    checkpoint_seconds: f64, "s", measured, "wall time in writing checkpoints";
    tokens_per_second: Option<f64>, "tokens/s", measured, "tokens over wall time, median over the steps after the first";
    mfu: Option<f64>, "", measured, "share of the device's peak FLOP rate, where that is known";
    peak_rss_bytes: Option<u64>, "bytes", measured, "most memory the process held";
    peak_device_bytes: Option<u64>, "bytes", measured, "most memory of tensors on the device, where it is counted";
    host: String, "", measured, "host name";
    cpu_model: String, "", measured, "the CPU's name";
    accelerator: Option<String>, "", measured, "the accelerator's name";
    started: String, "UTC", measured, "when it began";
    finished: String, "UTC", measured, "when it ended";
}

table! {
    StepRow, "steps.parquet", "One row an optimizer step of a run.",
    arm: String, "", exact, "the cell without its seed";
    seed: u64, "", exact, "seed of the initial weights";
    run_key: String, "", exact, "identity of the run";
    step: u64, "", exact, "the step, from 0";
    loss: f32, "nats/token", exact, "mean loss over the step's tokens, before its update";
    lr_multiplier: f64, "", exact, "multiplies every group's base learning rate";
    muon_momentum: f64, "", exact, "Muon's momentum";
    muon_weight_decay: f64, "", exact, "Muon's weight decay";
    tokens: u64, "tokens", exact, "tokens trained on, this step included";
    seconds: f64, "s", measured, "wall time of the step";
}

table! {
    OwnStepRow, "steps.parquet", "One row an optimizer step of the attempt in whose directory the table is.",
    step: u64, "", exact, "the step, from 0";
    loss: f32, "nats/token", exact, "mean loss over the step's tokens, before its update";
    lr_multiplier: f64, "", exact, "multiplies every group's base learning rate";
    muon_momentum: f64, "", exact, "Muon's momentum";
    muon_weight_decay: f64, "", exact, "Muon's weight decay";
    tokens: u64, "tokens", exact, "tokens trained on, this step included";
    seconds: f64, "s", measured, "wall time of the step";
}

table! {
    DocumentRow, "documents.parquet", "One row a group of documents of the text that the attempt's last evaluation was made on: its documents by a hash of what they are.",
    group: u64, "", exact, "number of the group, below 2048";
    documents: u64, "", exact, "its documents, each time that one was read";
    targets: u64, "tokens", exact, "targets in them that a loss is taken of";
    bytes: u64, "bytes", exact, "text that these stand for";
    nats: f64, "nats", exact, "sum of the losses of the targets that stand for text";
    loss: f64, "nats", exact, "sum of the losses of all of them";
}

table! {
    EvalRow, "evals.parquet", "One row a value of an evaluation.",
    arm: String, "", exact, "the cell without its seed";
    seed: u64, "", exact, "seed of the initial weights";
    run_key: String, "", exact, "identity of the run";
    step: u64, "steps", exact, "optimizer steps done before it";
    metric: String, "", exact, "what was evaluated: `val_bpb`, ..";
    value: f64, "", exact, "its value; `val_bpb` in bits a byte";
    eval_hash: String, "", exact, "hash over the evaluation";
}

table! {
    ScorecardRow, "scorecard.parquet", "One row a verdict.",
    verdict: String, "", exact, "`quality`, `speed`, `target` or `reproducibility`; `look` for what each look at the seeds so far said of quality";
    arm: String, "", exact, "the arm that is judged";
    control: Option<String>, "", exact, "the arm it is compared with";
    metric: String, "", exact, "what is compared";
    outcome: String, "", exact, "`pass`, `fail`, `undecided`, `not judged`, `no baseline` or `info`";
    finding: Option<String>, "", exact, "of quality: `better`, `equivalent`, `no worse`, `worse, within the margin`, `worse` or `undecided`";
    pairs: u64, "", exact, "pairs of runs with equal seeds";
    arm_mean: Option<f64>, "", exact, "mean of the arm";
    control_mean: Option<f64>, "", exact, "mean of the control";
    difference: Option<f64>, "", exact, "mean of arm - control over the pairs; for speed the ratio arm / control; for a target mean of arm - target";
    lower: Option<f64>, "", exact, "lower confidence bound of the difference, for all arms together";
    upper: Option<f64>, "", exact, "upper confidence bound of the difference, for all arms together";
    raw_lower: Option<f64>, "", exact, "the lower bound as if there were no other arm";
    raw_upper: Option<f64>, "", exact, "the upper bound as if there were no other arm";
    p: Option<f64>, "", exact, "two-sided p of no difference, as if there were no other arm";
    p_adjusted: Option<f64>, "", exact, "the same for all arms, controls and metrics together (Dunnett, Holm); looks are not in it";
    look: Option<u64>, "", exact, "the look at the seeds so far that says so, from 1";
    looks: Option<u64>, "", exact, "how many looks there are";
    look_seeds: Option<u64>, "", exact, "seeds that the look is over";
    look_level: Option<f64>, "", exact, "nominal two-sided level of the look, of one arm as if there were no other";
    worth_steps: Option<f64>, "steps", exact, "what the difference is worth by the slope of the arm's own curve; below 0 what it lacks";
    worth_tokens: Option<f64>, "tokens", exact, "the same in tokens";
    tokens_ratio: Option<f64>, "", exact, "tokens of the arm over the control's";
    flops_ratio: Option<f64>, "", exact, "FLOPs of the arm over the control's";
    per_token: Option<f64>, "", exact, "the difference at equal tokens: corrected by that slope where they are not";
    per_second: Option<f64>, "", measured, "the difference at equal time, corrected so; only where speed may be judged";
    deviation: Option<f64>, "", exact, "standard deviation of differences between seeds";
    text_deviation: Option<f64>, "", exact, "standard deviation of the difference between validation texts as large as the one it was measured on, these runs given";
    text_reach: Option<f64>, "", exact, "how far another such text would move the difference, to either side, at the confidence of the verdict";
    text_documents: Option<u64>, "", exact, "different documents that this is told by, about so many where some were read more than once";
    text_detail: Option<String>, "", exact, "the same in words, or why it is not measured";
    seeds_needed: Option<u64>, "", exact, "about how many seeds would decide what is undecided";
    limit: Option<f64>, "", exact, "the margin, the smallest ratio or the target";
    confidence: Option<f64>, "", exact, "confidence of the interval";
    detail: String, "", exact, "the verdict in words";
}

table! {
    ScalingRow, "scaling.parquet", "One row an arm, a best size, a power law or a note of the scaling fit.",
    kind: String, "", exact, "`arm`, `best` (of a budget), `law` or `note`";
    metric: String, "", exact, "the metric that is fitted";
    x: String, "", exact, "what power laws are in";
    budget: Option<String>, "", exact, "the budget; `all` where arms are not grouped";
    arm: Option<String>, "", exact, "the arm";
    seeds: Option<u64>, "", exact, "seeds that its mean is over";
    params: Option<f64>, "", exact, "parameters that scaling laws count, or the best number of them";
    tokens: Option<f64>, "tokens", exact, "tokens of a run";
    flops: Option<f64>, "FLOP", exact, "FLOPs of a run";
    depth: Option<f64>, "", exact, "layers";
    value: Option<f64>, "", exact, "the metric";
    quantity: Option<String>, "", exact, "what follows the law";
    coefficient: Option<f64>, "", exact, "its factor";
    exponent: Option<f64>, "", exact, "its exponent";
    lower: Option<f64>, "", exact, "lower end of the interval of the exponent or of the best number of parameters";
    upper: Option<f64>, "", exact, "the upper end";
    detail: String, "", exact, "what else is to be said of it";
}

table! {
    LedgerRow, "ledger.parquet", "One row an arm that was judged, over all experiments of some results; of an experiment without verdicts, one row.",
    experiment: String, "", exact, "directory of the experiment's results";
    name: String, "", exact, "name in its manifest";
    question: Option<String>, "", exact, "what it asked";
    hypothesis: Option<String>, "", exact, "what was expected of it";
    varied: Option<String>, "", exact, "in what it departs from its manifest";
    status: String, "", exact, "`finished` where all its runs have ended, else `unfinished`";
    arms: String, "", exact, "all its arms";
    arm: String, "", exact, "the arm that is judged";
    control: Option<String>, "", exact, "the arm it is compared with; of a try with its experiment";
    metric: String, "", exact, "what is compared";
    outcome: String, "", exact, "as in `scorecard.parquet`; empty where nothing was judged";
    finding: Option<String>, "", exact, "as in `scorecard.parquet`";
    effect: Option<f64>, "", exact, "mean of arm - control over the pairs";
    lower: Option<f64>, "", exact, "lower confidence bound of the effect";
    upper: Option<f64>, "", exact, "upper confidence bound of the effect";
    confidence: Option<f64>, "", exact, "confidence of the interval";
    margin: Option<f64>, "", exact, "how much worse still passes";
    seeds: u64, "", exact, "pairs of runs with equal seeds";
    try_number: Option<u64>, "", exact, "of a try, the how manyth against its control";
    detail: String, "", exact, "the verdict in words";
    runs: u64, "", exact, "runs of the experiment";
    finished_runs: u64, "", exact, "those with a result";
    commits: String, "", exact, "pinned upstream commits, seven digits each";
    backends: String, "", exact, "what computed it";
    arm_seconds: f64, "s", measured, "wall time of the arm's runs, without steps that were trained as part of others";
    arm_flops: f64, "FLOP", exact, "of training the arm's runs, likewise";
    seconds: f64, "s", measured, "wall time of all runs of the experiment";
    flops: f64, "FLOP", exact, "of training all runs of the experiment";
    started: String, "UTC", measured, "when its first run began";
    finished: String, "UTC", measured, "when its last run ended";
}
