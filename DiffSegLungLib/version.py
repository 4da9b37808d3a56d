"""The version of this software, told once."""

__version__ = "0.1.0"
