"""What a sweep shows to people: a page of what its records, result and stored answers say. Only here is Jinja2."""

FACE = {"facts": ("Facts", "read_facts")}
"""What other rooms may import, by module."""
