"""The HTTP API in the words of OpenAPI 3.1."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

_IMAGE = {
    "description": "The bytes of an image, or JSON with one or several.",
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {"description": "base64, a data URL, or pixels as nested lists"},
                    "images": {"type": "array", "description": "several of these; each has its own answer or error"},
                },
            }
        },
    },
}
_WRONG = {
    "401": "a token is needed",
    "404": "no such model",
    "413": "the request is too large",
    "415": "a form, where an image or JSON must be",
    "422": "the image cannot be read, or a parameter is out of range",
    "429": "too many requests, or bytes of them, at a time; see Retry-After",
    "503": "no answer in time",
}


def describe_api() -> dict[str, Any]:
    """Return the description of all endpoints."""
    model = _asked("model", "key of a model, see /models; the first one answers otherwise", "string")
    shared = [
        model,
        _asked("k", "how many neighbours vote, for models with a gallery", "integer"),
        _asked("distance", "euclidean or cosine, for models with a gallery", "string"),
        _asked("top", "how many of the likeliest classes are named; 5 otherwise", "integer"),
        _asked("looked", "1: also say where the network looked, a grid of numbers in 0..1", "integer"),
        _asked("abstain", "a precision, such as 0.9: the label is unknown below the confidence that had it", "number"),
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "carsweep serve",
            "version": version("carsweep"),
            "description": "Trained models behind HTTP: an image in, its class and the most similar pictures out.",
        },
        "paths": {
            "/predict": {"post": _answers("The class of an image, with calibrated probabilities.", shared)},
            "/search": {"post": _answers("The training images that are most like an image.", shared)},
            "/models": {"get": _tells("The models that answer: their keys, classes and galleries.")},
            "/thumbnails/{model}/{place}": {"get": _tells("A small picture of an image of a model's gallery.")},
            "/health": {"get": _tells("200 once every model has answered once, 503 before.")},
            "/metrics": {"get": _tells("Counts of requests, seconds and images for Prometheus.")},
        },
    }


def _asked(name: str, about: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": about, "schema": {"type": kind}}


def _answers(summary: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    wrong = {code: {"description": f"{why}; JSON with error"} for code, why in _WRONG.items()}
    right = {"description": "JSON with label, probability, top and perhaps neighbours; for several, predictions."}
    return {"summary": summary, "parameters": parameters, "requestBody": _IMAGE, "responses": {"200": right, **wrong}}


def _tells(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "as said"}}}
