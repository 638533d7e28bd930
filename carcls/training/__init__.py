FACE = {
    "images": ("ImageSource", "answering_batch", "fetched", "pick_device"),
    "measured": ("costs_of", "count_parameters"),
    "memory": ("memory_errors_named",),
    "embeddings": ("Embedder", "part_of"),
    "trained": ("TrainedClassifier", "read_history", "save_predictions"),
}
"""What other rooms may import, by module."""
