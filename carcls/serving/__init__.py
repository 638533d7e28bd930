"""Loaded models behind one page and one HTTP API: a photograph in, its class and the pictures most like it out."""

FACE = {
    "app": ("make_app",),
    "hosts": ("is_loopback",),
    "served": ("Served",),
}
"""What other rooms may import, by module."""
