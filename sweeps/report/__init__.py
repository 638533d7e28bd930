"""What a sweep shows to people: a page of what its records, result and stored answers say. Only here is Jinja2."""

FACE = {
    "audit": ("DataAudit",),
    "data": ("data_page",),
    "card": ("CARD", "model_card", "short_card"),
    "charts": ("charts_part",),
    "details": ("CONFIRMED",),
    "facts": ("Facts", "read_facts"),
    "page": ("REPORT", "SideBySide", "write_report"),
    "similar": ("jpeg_uri", "training_pictures", "votes_of", "write_similar"),
    "verdict": ("compared_text", "idle_seeds_text", "test_text", "why_no_winner", "winner_text"),
}
"""What other rooms may import, by module."""
