"""Exact nearest neighbours in a gallery, their votes, and projections that are fitted on it."""

FACE = {
    "exact": ("Neighbours",),
    "gallery": ("Gallery",),
    "search": ("find_neighbours",),
    "votes": ("count_votes",),
    "whitening": ("Projection",),
}
"""What other rooms may import, by module."""
