"""Scratch: a convolutional network trained from nothing."""

from __future__ import annotations

from carcls.families.classifying import evaluate_on_test, export, refit, run

__all__ = ["evaluate_on_test", "export", "refit", "run"]
