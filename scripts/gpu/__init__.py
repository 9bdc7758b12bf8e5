"""The GPU session: its stages, how they run, and what they leave."""
