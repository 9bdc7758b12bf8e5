"""The parts of scripts/new_commit: reading an upstream checkout by running it, comparing two, writing a table."""
