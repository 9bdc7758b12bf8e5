"""Executes a notebook, cell by cell, in a copy of where a reader would: NOTEBOOK ROOT PLACE.

Fails with the cell's own error. Experiments are there by the name they have in the repository; what it writes stays in PLACE.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> None:
    notebook, root, place = map(Path, sys.argv[1:4])
    (place / "experiments").symlink_to(root / "experiments")
    read = nbformat.read(notebook, as_version=4)
    # With no output kept in the repository, none can be stale.
    kept = [cell for cell in read.cells if cell.cell_type == "code" and cell.outputs]
    if kept:
        sys.exit(f"{notebook}: {len(kept)} cells hold outputs: clear them")
    NotebookClient(read, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
    shown = [output for cell in read.cells if cell.cell_type == "code" for output in cell.outputs]
    if not any(output.output_type == "display_data" for output in shown):
        sys.exit(f"{notebook}: it drew nothing")
    print(f"{notebook.name}: {sum(cell.cell_type == 'code' for cell in read.cells)} cells, {len(shown)} outputs")


main()
