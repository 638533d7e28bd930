"""Trials on processes and machines: Ray, Tune, failure recovery, budgets. Only here is Ray."""
