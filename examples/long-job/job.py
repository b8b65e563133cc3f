"""Long work in small steps: each is recorded, so that the next run goes on where this one ended."""

import argparse
import json
import os
import time
from pathlib import Path

CHECKPOINT = Path("checkpoints") / "state.json"


def load() -> dict:
    if CHECKPOINT.exists():
        return json.loads(CHECKPOINT.read_text())
    return {"step": 0, "total": 0}


def save(state: dict) -> None:
    # Written aside and renamed: whatever ends the run, the checkpoint is whole.
    aside = CHECKPOINT.with_suffix(".new")
    aside.write_text(json.dumps(state))
    aside.replace(CHECKPOINT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds that a step takes")
    parser.add_argument("--fail-at", type=int, help="fail once at this step, to see the retry")
    args = parser.parse_args()

    state = load()
    attempt = int(os.environ.get("DSTACK_ATTEMPT", "1"))
    print(f"attempt {attempt}, going on from step {state['step']}")
    while state["step"] < args.steps:
        if state["step"] == args.fail_at and attempt == 1:
            raise SystemExit(f"step {args.fail_at} failed")
        time.sleep(args.pause)
        state = {"step": state["step"] + 1, "total": state["total"] + state["step"] + 1}
        save(state)
        print(f"step {state['step']} of {args.steps}, total {state['total']}")
    CHECKPOINT.unlink()
    print(f"done: {state['total']}")


if __name__ == "__main__":
    main()
