"""`python -m nanorun ...` is `nanorun ...`."""

import os
import sys

from ._program import ProgramMissing, find


def main() -> int:
    try:
        program = find()
    except ProgramMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # In place of this process, so that signals reach the program and its exit code is that of the call.
    os.execv(program, [program, *sys.argv[1:]])
    return 1


if __name__ == "__main__":
    sys.exit(main())
