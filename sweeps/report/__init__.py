"""What a sweep shows to people: a page of what its records, result and stored answers say. Only here is Jinja2."""

FACE: dict[str, tuple[str, ...]] = {}
"""What other rooms may import, by module."""
