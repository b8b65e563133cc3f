"""Fit a line by gradient descent, slowly enough to be watched in TensorBoard."""

import argparse
import random
import time

from tensorboardX import SummaryWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two steps")
    args = parser.parse_args()

    noise = random.Random(0)
    points = [(x / 50, 3 * x / 50 + 1 + noise.gauss(0, 0.1)) for x in range(-50, 50)]
    slope = intercept = 0.0
    with SummaryWriter("logs") as writer:
        for step in range(1, args.steps + 1):
            errors = [(slope * x + intercept - y, x) for x, y in points]
            loss = sum(error**2 for error, _ in errors) / len(points)
            slope -= 0.02 * sum(2 * error * x for error, x in errors) / len(points)
            intercept -= 0.02 * sum(2 * error for error, _ in errors) / len(points)
            writer.add_scalar("loss", loss, step)
            writer.add_scalar("slope", slope, step)
            writer.flush()
            if step % 10 == 0:
                print(f"step {step}  loss {loss:.4f}  y = {slope:.2f} x + {intercept:.2f}")
            time.sleep(args.pause)


if __name__ == "__main__":
    main()
