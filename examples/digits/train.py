"""Train a small neural network on scikit-learn's handwritten digits."""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    args = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16.0, labels, test_size=0.25, random_state=0, stratify=labels
    )
    print(f"{len(train_x)} images to train on, {len(test_x)} to test on")
    model = MLPClassifier(
        hidden_layer_sizes=(64,),
        batch_size=args.batch_size,
        learning_rate_init=args.learning_rate,
        random_state=0,
    )
    order = np.random.default_rng(0)
    for epoch in range(1, args.epochs + 1):
        shuffled = order.permutation(len(train_x))
        model.partial_fit(train_x[shuffled], train_y[shuffled], classes=np.unique(labels))
        loss = log_loss(test_y, model.predict_proba(test_x))
        accuracy = model.score(test_x, test_y)
        print(f"epoch {epoch:3}  loss {loss:.4f}  accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
