FACE = {
    "embeddings": ("Extractor", "read_embeddings"),
    "images": ("pick_device",),
    "measured": ("costs_of", "count_parameters"),
    "trained": ("PREDICTIONS", "TrainedClassifier", "read_history", "save_predictions"),
}
"""What other rooms may import, by module."""
