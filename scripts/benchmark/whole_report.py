"""What whole runs show: whether there is a bias, and whether the spread is upstream's own."""

from __future__ import annotations

def markdown(about, lines, missing):
    return "", True
