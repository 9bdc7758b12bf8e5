"""A commit's table under src/upstream/commits, as Rust: what departs from the commit before it, and nothing else."""

import pathlib
import re
import shutil
import subprocess

# The members of the recipe in the order of src/upstream/recipe.rs, each with how its value is written.
ADAMW = {"lr": "float", "betas": "pair", "weight_decay": "float"}
RECIPE = {
    "model": (
        "ModelRecipe",
        {
            "depth": "int",
            "aspect_ratio": "int",
            "head_dim": "int",
            "sequence_len": "int",
            "window_pattern": "text",
            "short_window": "ShortWindow",
            "rope_base": "float",
            "rotary_precision": "PrecisionRule",
            "qk_scale": "float",
            "softcap": "float",
            "value_embeds": "bool",
            "ve_gate_channels": "int",
            "ve_gate_scale": "float",
            "smear": "bool",
            "smear_channels": "int",
            "backout": "bool",
            "norm_eps": "float",
            "flops_count_smear_gate": "bool",
        },
    ),
    "init": (
        "InitRecipe",
        {
            "wte_std": "float",
            "lm_head_std": "float",
            "c_fc_scale": "float",
            "ve_gate_max": "float",
            "resid_lambda": "ramp",
            "x0_lambda": "ramp",
            "smear_gate_max": "float",
            "smear_lambda": "float",
            "backout_lambda": "float",
        },
    ),
    "optimizer": (
        "OptimizerRecipe",
        {
            "unembedding": ("AdamWRecipe", ADAMW),
            "embedding": ("AdamWRecipe", ADAMW),
            "value_embeds": ("AdamWRecipe", ADAMW),
            "resid": ("AdamWRecipe", ADAMW),
            "x0": ("AdamWRecipe", ADAMW),
            "smear": ("AdamWRecipe", ADAMW),
            "adam_eps": "float",
            "muon": (
                "MuonRecipe",
                {
                    "lr": "float",
                    "beta2": "float",
                    "norm_factor": "float",
                    "ns_steps": "int",
                    "row_equilibration": "bool",
                    "renormalize": "bool",
                    "polar_precision": "PrecisionRule",
                    "update_precision": "PrecisionRule",
                    "weight_decay": "float",
                    "momentum": (
                        "MomentumRecipe",
                        {"start": "float", "peak": "float", "warmup_steps": "int", "warmdown_to": "optional float"},
                    ),
                },
            ),
            "weight_decay_law": "WeightDecayLaw",
        },
    ),
    "schedule": (
        "ScheduleRecipe",
        {
            "warmup": "warmup",
            "warmdown_ratio": "float",
            "final_lr_frac": "float",
            "weight_decay_shape": "WeightDecayShape",
            "param_data_ratio": "float",
        },
    ),
    "data": (
        "DataRecipe",
        {
            "device_batch_size": "int",
            "total_batch_size": "batch",
            "eval_every": "int",
            "eval_tokens": "int",
            "token_bytes": "TokenBytesRule",
        },
    ),
}
# Upstream states tokens in these.
BATCH = 524_288


def leaves(members=RECIPE, path=""):
    """All paths of a recipe."""
    for name, kind in members.items():
        if isinstance(kind, tuple):
            yield from leaves(kind[1], f"{path}{name}.")
        else:
            yield f"{path}{name}"


def flat(recipe):
    """A reading's values by path, those of momentum apart."""
    found = {}
    for path, value in recipe.items():
        if path.endswith(".momentum"):
            found |= {f"{path}.{name}": part for name, part in value.items()}
        else:
            found[path] = value
    return found


def number(value):
    if isinstance(value, int):
        return f"{value // BATCH} * {BATCH:_}" if value % BATCH == 0 and value > BATCH else f"{value:_}"
    if value == 2.0**-23:
        return "f32::EPSILON as f64"
    text = repr(float(value))
    whole = re.fullmatch(r"(\d{5,})\.0", text)
    return f"{int(whole[1]):_}.0" if whole else text


def written(kind, value, uses):
    """A value as Rust; the types it takes are added to `uses`."""
    match kind:
        case "int":
            return number(int(value))
        case "float":
            return number(float(value))
        case "optional float":
            return "None" if value is None else f"Some({number(float(value))})"
        case "pair":
            return f"({number(float(value[0]))}, {number(float(value[1]))})"
        case "text":
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case "bool":
            return "true" if value else "false"
        case "ramp":
            uses.add("LayerRamp")
            return f"LayerRamp {{ first: {number(value['first'])}, fall: {number(value['fall'])} }}"
        case "warmup":
            uses.add("WarmupRule")
            (rule, amount), = value.items()
            return f"WarmupRule::{rule.title()}({number(amount)})"
        case "batch":
            uses.add("BatchRule")
            return "BatchRule::Auto" if value == "auto" else f"BatchRule::Tokens({number(int(value))})"
        case _:
            uses.add(kind)
            return f"{kind}::{value.title().replace('_', '')}"


def departures(new, base):
    """The paths whose values are others, in the order of the recipe."""
    return [path for path in leaves() if new.get(path) != base.get(path)]


def members_of(members, path, new, changed, uses):
    """The members that depart, each as a line of Rust."""
    lines = []
    for name, kind in members.items():
        here = f"{path}{name}"
        if isinstance(kind, tuple):
            inner = [leaf for leaf in changed if leaf.startswith(f"{here}.")]
            if not inner:
                continue
            uses.add(kind[0])
            # Most of a small group is easier read whole.
            whole = kind[0] == "AdamWRecipe" and len(inner) > 1
            wanted = [f"{here}.{member}" for member in kind[1]] if whole else changed
            parts = members_of(kind[1], f"{here}.", new, wanted, uses)
            if not whole and len(parts) < len(kind[1]):
                parts.append(f"..BEFORE.{here}")
            lines.append(f"{name}: {kind[0]} {{ {', '.join(parts)} }}")
        elif here in changed:
            lines.append(f"{name}: {written(kind, new[here], uses)}")
    return lines


def render(commit, date, note, about, base, new, before):
    """The file of a table.

    `commit` has 40 digits, `base` is the module of the commit before it; `new` and `before` are values by path.
    """
    uses = {"Recipe"}
    changed = departures(new, before)
    parts = members_of(RECIPE, "", new, changed, uses)
    text = note.replace("\\", "\\\\").replace('"', '\\"')
    lines = [f'commit: "{commit}"', f'date: "{date}"', f'note: "{text}"', *parts, "..BEFORE"]
    doc = "\n".join(f"//! {line}" for line in about)
    return rustfmt(
        f"{doc}\n\nuse super::{base}::RECIPE as BEFORE;\n"
        f"use crate::upstream::recipe::{{{', '.join(sorted(uses))}}};\n\n"
        f"pub(super) const RECIPE: Recipe = Recipe {{ {', '.join(lines)} }};\n"
    )


def words(text):
    """What a person wrote into a table: the lines at its top, and its note."""
    about = [line.removeprefix("//!").strip() for line in text.splitlines() if line.startswith("//!")]
    note = re.search(r'note: "((?:[^"\\]|\\.)*)"', text)[1]
    return about, note.replace('\\"', '"').replace("\\\\", "\\")


def rustfmt(text):
    """As the project's own format has it, where rustfmt is installed."""
    if not shutil.which("rustfmt"):
        return text
    command = ["rustfmt", "--edition", "2024", "--emit", "stdout"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=pathlib.Path(__file__).parent)
    return done.stdout if done.returncode == 0 else text


def module(commit):
    return f"c{commit[:7]}"


def listed(text, commit, base):
    """src/upstream/commits/mod.rs with one commit more, after `base`."""
    name, after = module(commit), module(base)
    if f"mod {name};" in text:
        return text
    modules = sorted([*re.findall(r"^mod (\w+);$", text, re.M), name])
    text = re.sub(r"(^mod \w+;\n)+", "".join(f"mod {one};\n" for one in modules), text, count=1, flags=re.M)
    text = text.replace(f"    {after}::RECIPE,\n", f"    {after}::RECIPE,\n    {name}::RECIPE,\n")
    count = int(re.search(r"RECIPES: \[Recipe; (\d+)\]", text)[1])
    return text.replace(f"[Recipe; {count}]", f"[Recipe; {count + 1}]")
