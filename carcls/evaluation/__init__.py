FACE = {
    "metrics": ("answer_metrics", "classification_metrics", "neighbours_needed", "retrieval_metrics", "softmax"),
    "predictions": ("StoredPredictions", "read_predictions"),
    "significance": ("LEVEL", "NO_DIFFERENCE", "PairedComparison", "compare_hits", "holm", "wilson_interval"),
}
"""What other rooms may import, by module."""
