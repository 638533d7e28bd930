"""Exact nearest neighbours in a gallery, their votes, and projections that are fitted on it."""
