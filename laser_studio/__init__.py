"""LASER Studio: a visual debugger for recursive reasoning models."""

__version__ = "0.1.0"
