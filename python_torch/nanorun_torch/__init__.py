"""nanorun's backend on PyTorch's libtorch: the program, and what starts it with the libraries of the torch that is installed.

`nanorun` starts this by itself where a manifest asks for the backend `tch`; `nanorun-torch` is the same by hand.
"""

from ._start import NoTorch, Torch, find, main

__all__ = ["NoTorch", "Torch", "find", "main"]
