"""Ask the exported model of which classes images are: python example.py IMAGE…

It needs numpy, pillow and onnxruntime; preprocess.json beside it says what the network takes and answers.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).parent
HOW = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))


def read(path: str) -> np.ndarray:
    """Return an image as the network takes it, float32 [3, s, s]."""
    with Image.open(path) as file:
        file.draft(None, (HOW["least_pixels"],) * 2)  # a large JPEG is decoded smaller
        image = ImageOps.exif_transpose(file).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    square = image.resize((HOW["image_size"],) * 2, Image.Resampling.BICUBIC, reducing_gap=3.0)
    normalised = (np.asarray(square, np.float32) / 255 - np.float32(HOW["mean"])) / np.float32(HOW["std"])
    return normalised.transpose(2, 0, 1)


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(HERE / "model.onnx")
    probabilities, labels, *_ = session.run(None, {"images": np.stack([read(path) for path in sys.argv[1:]])})
    for path, row, label in zip(sys.argv[1:], probabilities, labels, strict=True):
        sys.stdout.write(f"{path}\t{HOW['classes'][label]}\t{row[label]:.4f}\n")
