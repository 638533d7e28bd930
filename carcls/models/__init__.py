FACE = {
    "backbones": ("Backbone",),
    "classifier": ("Classifier", "build_classifier", "build_network", "stand_in"),
    "folding": ("folded",),
    "networks": ("Network", "know_network"),
    "weights": ("LATER", "RANDOM", "resolve_weights"),
}
"""What other rooms may import, by module."""
