"""A linear SVM on a net's features: python examples/features_svm.py TRAIN.npz TEST.npz

The files come from predict.py --features; the labels are the names of the pictures' folders. C is chosen by five-fold
cross-validation on the training features only. The VGG paper uses its 4,096 features in this way (arXiv:1409.1556,
appendix B), scaled to length 1; here each feature is scaled to standard deviation 1.
"""

import sys

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

CHOICES = [10.0**power for power in range(-5, 2)]  # of C


def main(train_path: str, test_path: str) -> None:
    """Fits on one file and prints the accuracy on the other."""
    train, test = np.load(train_path), np.load(test_path)
    known = np.isin(test["labels"], train["labels"])
    if not known.all():
        sys.exit(f"{test_path} has classes that are not in {train_path}: {', '.join(set(test['labels'][~known]))}")
    svm = make_pipeline(StandardScaler(), LinearSVC(max_iter=10_000))
    search = GridSearchCV(svm, {"linearsvc__C": CHOICES}, cv=5).fit(train["features"], train["labels"])
    right = int((search.predict(test["features"]) == test["labels"]).sum())
    print(f"{train['features'].shape[1]:,} features, {len(train['labels']):,} training pictures")
    print(f"C {search.best_params_['linearsvc__C']:g}, cross-validated {search.best_score_:.2%}")
    print(f"test {right / len(test['labels']):.2%} ({right:,} of {len(test['labels']):,})")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
