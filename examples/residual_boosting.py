"""Three small trees, each fitted to the residuals of the sum of the trees before it.

    python examples/residual_boosting.py [--out PNG]

Gradient boosting for squared error (Friedman, Greedy function approximation, Annals of Statistics 29, 2001), step by
step: start from the mean; fit a regression tree of depth 2 to the residuals; add it; repeat. Prints the remaining error
after each stage, and that of scikit-learn's GradientBoostingRegressor, and draws the stages.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.tree import DecisionTreeRegressor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import errors
from files import check_output, expand, output_file

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STAGES, DEPTH = 3, 2


def points(count: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy values of a smooth function: x [count, 1] in [-1, 1], ascending, and y [count]."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(-1, 1, count))
    return x[:, None], np.sin(3 * x) + x**2 + rng.normal(0, 0.1, count)


def boosted(x: np.ndarray, y: np.ndarray) -> tuple[float, list[DecisionTreeRegressor]]:
    """Fits the stages.

    Args:
        x: [N, features].
        y: [N].

    Returns:
        The mean of y, and the trees. The prediction is the mean plus the sum of the trees' predictions.
    """
    mean = y.mean()
    residual, trees = y - mean, []
    for _ in range(STAGES):
        tree = DecisionTreeRegressor(max_depth=DEPTH, random_state=0).fit(x, residual)
        residual = residual - tree.predict(x)
        trees.append(tree)
    return mean, trees


def predictions(mean: float, trees: list[DecisionTreeRegressor], x: np.ndarray) -> np.ndarray:
    """The predictions after 0, 1, … stages: [stages + 1, N]."""
    terms = [np.full(len(x), mean), *(tree.predict(x) for tree in trees)]
    return np.cumsum(terms, axis=0)


def draw(x: np.ndarray, y: np.ndarray, mean: float, trees: list[DecisionTreeRegressor], path: str) -> None:
    """Draws a column per stage: the residuals with the tree fitted to them, and below, the data with the sum."""
    grid = np.linspace(-1, 1, 500)[:, None]
    before, after = predictions(mean, trees, x), predictions(mean, trees, grid)
    figure, axes = plt.subplots(2, len(trees), figsize=(10, 5), sharex=True, sharey="row", layout="constrained")
    for i, tree in enumerate(trees):
        top, bottom = axes[:, i]
        for axis, values in ((top, y - before[i]), (bottom, y)):
            axis.plot(x, values, ".", color="0.6", ms=4)
            axis.grid(alpha=0.3)
        top.plot(grid, tree.predict(grid), color="C1")
        bottom.plot(grid, after[i + 1], color="C0")
        top.set_title(f"stage {i + 1}: tree fitted to the residuals", fontsize=10)
        bottom.set_title("sum: mean + " + " + ".join(f"tree {j + 1}" for j in range(i + 1)), fontsize=10)
        bottom.set_xlabel("x")
    axes[0, 0].set_ylabel("residual")
    axes[1, 0].set_ylabel("y")
    with output_file("--out", path) as partial:
        figure.savefig(partial, dpi=80)
    plt.close(figure)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=expand, default="residual_boosting.png", metavar="PNG", help="default: %(default)s"
    )
    args = parser.parse_args()
    check_output("--out", args.out, ".png")
    x, y = points()
    mean, trees = boosted(x, y)
    theirs = GradientBoostingRegressor(n_estimators=STAGES, max_depth=DEPTH, learning_rate=1.0, random_state=0).fit(
        x, y
    )
    ours, reference = predictions(mean, trees, x), [np.full(len(x), mean), *theirs.fit(x, y).staged_predict(x)]
    print("trees  mean squared residual  scikit-learn's")
    for stage, pair in enumerate(zip(ours, reference, strict=True)):
        print(f"{stage:>5}{np.mean((y - pair[0]) ** 2):>23.6f}{np.mean((y - pair[1]) ** 2):>16.6f}")
    print(f"largest difference between the predictions: {np.abs(ours - reference).max():.1e}")
    draw(x, y, mean, trees, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    with errors.reported():
        main()
