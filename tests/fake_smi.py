"""A command ``nvidia-smi`` as of driver 550 or newer, for the cards in ``cards.json`` beside it; see ``fake_card``."""

import json
import sys
from pathlib import Path
from typing import Any

_UNITS = " MiB"


def main(words: list[str]) -> str:
    """Return what it prints."""
    place = Path(__file__).parent
    with (place / "asked").open("a") as file:
        file.write(" ".join(words) + "\n")
    cards = json.loads((place / "cards.json").read_text())
    for entry in map(json.loads, (place / "ledger").read_text().splitlines()):
        if Path(f"/proc/{entry['pid']}").exists():
            next(card for card in cards if card["uuid"] == entry["uuid"])["held"].append(entry)
    if words == ["-L"]:
        return _listed(cards)
    (query, names), (_, form) = (word.split("=") for word in words)
    lines = []
    for row in (_gpu_rows if query == "--query-gpu" else _process_rows)(cards):
        if unknown := [name for name in names.split(",") if name not in row]:
            sys.exit(f'Field "{unknown[0]}" is not a valid field to query.')
        values = [f"{row[n]}{_UNITS * ('nounits' not in form and 'memory' in n)}" for n in names.split(",")]
        lines.append(", ".join(values) + "\n")
    return "".join(lines)


def _listed(cards: list[dict[str, Any]]) -> str:
    lines = ""
    for number, card in enumerate(cards):
        lines += f"GPU {number}: {card['name']} (UUID: {card['uuid']})\n"
        for part, uuid in enumerate(card["parts"]):
            lines += f"  MIG 1g.18gb     Device  {part}: (UUID: {uuid})\n"
    return lines


def _processes_of(card: dict[str, Any]) -> list[tuple[int, str, int]]:
    held: dict[int, int] = {}
    for entry in card["held"]:
        held[entry["pid"]] = held.get(entry["pid"], 0) + entry["mib"]
    return [*card["processes"], *((pid, sys.executable, mib) for pid, mib in held.items() if mib)]


def _gpu_rows(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for number, card in enumerate(cards):
        total, used = card["total"], card["hidden"] + sum(mib for *_, mib in _processes_of(card))
        memory = {"memory.total": total, "memory.used": used, "memory.free": total - used}
        rows.append({"index": number, "uuid": card["uuid"], "name": card["name"], "utilization.gpu": 55, **memory})
    return rows


def _process_rows(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"gpu_uuid": card["uuid"], "pid": pid, "process_name": name, "used_memory": mib, "used_gpu_memory": mib}
        for card in cards
        for pid, name, mib in _processes_of(card)
    ]


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
