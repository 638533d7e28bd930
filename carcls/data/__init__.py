FACE = {
    "audit": (
        "SPLITS",
        "SamePicture",
        "class_counts",
        "groups_of",
        "read_sides",
        "rows_by_class",
        "same_pictures",
        "sides_of",
        "split_names",
    ),
    "augment": ("Augmentation", "augment", "augmentation_of", "draw_view"),
    "config": ("DEMO_NAME", "DataConfig", "DataSummary"),
    "dataset": ("Dataset", "find_dataset", "prepare_dataset", "summarize"),
    "decode": ("LEAST_PIXELS", "as_rgb", "read_squares"),
    "demo": ("FOLDER_NAME", "demo_counts", "write_demo"),
    "layouts": ("read_layout",),
    "manifest": ("Manifest",),
    "paths": ("images_named", "require_images"),
    "unpacking": ("notes_of_unpacking", "unpacked"),
    "splits": ("listing_notes", "quota"),
}
"""What other rooms may import, by module."""
