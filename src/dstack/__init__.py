"""Run a task described in one small YAML file, anywhere."""

__version__ = "0.1.0"
