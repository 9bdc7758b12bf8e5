"""nanorun from Python: run experiments, read what they left, and ask for their verdicts.

    import nanorun

    results = nanorun.run("experiments/quickstart.toml")   # trains what is not done
    results = nanorun.load("results/quickstart")           # or reads what is there
    results.evals                                          # a polars or pandas frame
    for verdict in nanorun.verdict("results/quickstart"):
        print(verdict.arm, verdict.finding, verdict.difference, verdict.interval)

Pure Python: the program does the work and is spoken to over its `--json`. Frames are polars' if it is installed,
else pandas' (with pyarrow).
"""

from ._call import Error, InvalidInput, Interrupted, RunFailed, version
from ._experiments import Verdict, plan, run, verdict
from ._results import Results, load

__all__ = [
    "Error",
    "Interrupted",
    "InvalidInput",
    "Results",
    "RunFailed",
    "Verdict",
    "load",
    "plan",
    "run",
    "verdict",
    "version",
]
