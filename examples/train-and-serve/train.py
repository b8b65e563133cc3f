"""Trains a small model of text: which letters follow which, as often as it has read them."""

import argparse
import collections
import json
import platform
from pathlib import Path

MODEL = Path("models") / "letters.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="the longest context in letters")
    parser.add_argument("--text", default="text.txt")
    args = parser.parse_args()

    text = Path(args.text).read_text(encoding="utf-8")
    model = json.loads(MODEL.read_text()) if MODEL.exists() else {}
    print(f"training on {platform.node()}: {len(text)} letters, {len(model)} contexts known")
    for length in range(1, args.epochs + 1):
        for start in range(len(text) - length):
            context, letter = text[start : start + length], text[start + length]
            counts = model.setdefault(context, collections.Counter())
            counts[letter] = counts.get(letter, 0) + 1
        print(f"epoch {length} of {args.epochs}, {len(model)} contexts")
    # Written aside and renamed: whatever ends the run, the model is whole.
    aside = MODEL.with_suffix(".new")
    aside.write_text(json.dumps(model))
    aside.replace(MODEL)


if __name__ == "__main__":
    main()
