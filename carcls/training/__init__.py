FACE = {
    "images": ("pick_device",),
    "measured": ("costs_of", "count_parameters"),
    "embeddings": ("Embedder", "part_of"),
    "trained": ("TrainedClassifier", "read_history", "save_predictions"),
}
"""What other rooms may import, by module."""
