FACE = {
    "metrics": ("answer_metrics", "classification_metrics", "neighbours_needed", "retrieval_metrics", "softmax"),
    "calibration": ("Calibration", "ConfidenceBin", "calibration", "expected_error"),
    "confidence": ("Confidence", "confidence_from", "fit_confidence"),
    "confusion": ("Cell", "ClassScore", "ConfusedPair", "class_scores", "confused_pairs", "count_answers"),
    "grouping": ("GroupScore", "car_groups", "group_scores"),
    "held_out": ("HeldOutHeads",),
    "labels": ("LabelIssue", "suspicious_labels"),
    "predictions": ("PREDICTIONS", "StoredPredictions", "read_predictions", "read_probabilities"),
    "significance": (
        "LEVEL",
        "NO_DIFFERENCE",
        "PairedComparison",
        "compare_hits",
        "difference_interval",
        "holm",
        "wilson_interval",
        "Proportion",
    ),
}
"""What other rooms may import, by module."""
