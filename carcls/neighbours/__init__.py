"""Exact nearest neighbours in a gallery, their votes, and projections that are fitted on it."""

FACE = {
    "gallery": ("Gallery",),
    "search": ("Neighbours", "find_neighbours"),
    "votes": ("count_votes",),
    "whitening": ("Projection",),
}
"""What other rooms may import, by module."""
