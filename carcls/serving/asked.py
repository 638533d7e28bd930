"""What a request asks: its images, how many classes and neighbours, and the limits of all of these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from starlette.exceptions import HTTPException

from carcls.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask for.

    Attributes:
        body: bytes of a request.
        bodies: bytes of all requests that are worked on or wait.
        images: in one request.
        waiting: requests that are worked on or wait at a time.
        seconds: that a request may take, from its first byte to its answer.
    """

    body: int = 20 * 2**20
    bodies: int = 128 * 2**20
    images: int = 32
    waiting: int = 32
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class RequestParameters:
    """The parameters of a request; None where it says nothing.

    Attributes:
        k, distance: of the neighbours.
        top: how many classes are named.
        abstain: the precision that a label must have.
        looked: whether to say where the network looked.
    """

    k: int | None
    distance: str | None
    top: int | None
    abstain: float | None
    looked: bool

    @classmethod
    def read(cls, asked: Mapping[str, str]) -> Self:
        """Return what a query string asks.

        Raises:
            InputError: a value is none of those that it may have.
        """
        looked = asked.get("looked", "0").lower()
        if looked not in {"0", "1", "true", "false"}:
            raise InputError(f"looked must be 1 or 0, got {looked!r}.")
        k, top, abstain = _number(asked, "k"), _number(asked, "top"), _share(asked, "abstain")
        return cls(k, asked.get("distance"), top, abstain, looked in {"1", "true"})


def _number(asked: Mapping[str, str], name: str) -> int | None:
    text = asked.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise InputError(f"{name} must be a whole number from 1 to 999999999, got {text[:20]!r}.")
    return int(text)


def _share(asked: Mapping[str, str], name: str) -> float | None:
    text = asked.get(name)
    try:
        return None if text is None else float(text)
    except ValueError:
        raise InputError(f"{name} must be a precision such as 0.9, got {str(text)[:20]!r}.") from None


def images_in(kind: str, body: bytes, limits: Limits) -> tuple[list[Any], bool]:
    """Return the images of a request, and whether it is one alone.

    Args:
        kind: the body's content type.
        body: the image's file, or JSON.
        limits: of requests.

    Raises:
        HTTPException: there is none, or it is neither.
    """
    if not body:
        raise HTTPException(422, "send an image: its bytes, or JSON with image or images in base64")
    if kind.lower().startswith("multipart/"):
        raise HTTPException(415, "send the image itself as the body, no form: curl --data-binary @car.jpg")
    if "json" not in kind.lower():
        return [body], True
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is said to be JSON and is not, or is nested too deeply") from error
    is_one = isinstance(sent, dict) and "image" in sent
    images = [sent["image"]] if is_one else sent.get("images") if isinstance(sent, dict) else None
    if not isinstance(images, list) or not images:
        raise HTTPException(422, 'JSON must be {"image": …} or {"images": […]}, in base64, as data URLs or as pixels')
    if len(images) > limits.images:
        raise HTTPException(413, f"a request may have {limits.images} images, got {len(images)}; send them in parts")
    return images, is_one
