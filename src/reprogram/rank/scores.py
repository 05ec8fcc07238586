"""Transferability scores: what one forward pass of the source over N labelled pictures says about its use for them.

Pure functions of tensors, in float64 whatever comes in. For all of them more is better; they put sources in an order,
and their values compare only between sources that saw the same N pictures.
"""

import math

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say

NOISE_FLOOR = 1e-9
"""LogME takes mean squares below this (of targets that are 0 or 1) for this: evidence of an exact fit has no limit."""

_RATIOS = 1e-12, 1e12  # what LogME's ratio of the two precisions is kept between, features scaled to norm 1


def leep(probabilities: Tensor, y: Tensor, classes: int) -> float:
    """Log expected empirical prediction, Nguyen et al. 2020, arXiv:2002.12462.

    ``LEEP = mean_n log sum_z P(y_n | z) p_n(z)``, where P(y | z) comes from the joint of labels and soft predictions.
    A source class that no picture has any probability of counts nothing (0/0 is 0).

    Args:
        probabilities: of the source's own classes, [N, S], rows add up to 1.
        y: target labels, [N].
        classes: T.

    Returns:
        At most 0, which means that the source's classes tell the target's apart without doubt.

    Raises:
        DataError: shapes or labels do not fit, a value is not finite, or all pictures are of one class.

    Source class 0 is half right: P(y=0 | z=0) = 2/3. The third source class never occurs.

    >>> p = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    >>> round(math.exp(4 * leep(p, torch.tensor([0, 0, 1, 1]), 2)), 6) == round(2 / 3 * 2 / 3 * 1 / 3 * 1, 6)
    True
    """
    p = _probabilities(probabilities, y, classes)
    joint = torch.zeros(classes, p.shape[1], dtype=torch.float64).index_add_(0, y.cpu(), p) / len(y)
    given = (p @ _conditional(joint).T).gather(1, y.cpu()[:, None])
    return float(given.log().mean())


def nce(probabilities: Tensor, y: Tensor, classes: int) -> float:
    """Negative conditional entropy of labels given hard predictions, Tran et al. 2019, arXiv:1908.08142.

    ``NCE = sum_{y, z} P(y, z) log P(y | z)`` with z the source class of highest probability.

    Args:
        probabilities: of the source's own classes, [N, S]; only which is largest counts.
        y: target labels, [N].
        classes: T.

    Returns:
        At most 0, which means that the prediction gives the label away.

    Raises:
        DataError: as for `leep`.

    >>> p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])  # predictions 0, 0, 0, 1
    >>> expected = (2 * math.log(2 / 3) + math.log(1 / 3)) / 4
    >>> abs(nce(p, torch.tensor([0, 0, 1, 1]), 2) - expected) < 1e-12
    True
    """
    p = _probabilities(probabilities, y, classes)
    pairs = y.cpu() * p.shape[1] + p.argmax(1)
    joint = torch.bincount(pairs, minlength=classes * p.shape[1]).double().view(classes, -1) / len(y)
    return float(torch.xlogy(joint, _conditional(joint)).sum())


def h_score(features: Tensor, y: Tensor, classes: int, *, ridge: float = 1e-4) -> float:
    """H-score, Bao et al. 2019 ("An information-theoretic approach to transferability").

    ``tr(cov(f)^-1 cov(E[f | y]))``: the share of each direction's variance that lies between classes, summed. The
    covariance gets `ridge` times its mean diagonal added, so that N < D is allowed.

    Args:
        features: what the source's last layer reads, [N, D].
        y: target labels, [N].
        classes: T.
        ridge: relative, above 0.

    Returns:
        0 (constant features, too) up to T - 1.

    Raises:
        DataError: as for `leep`.
        ConfigError: the ridge is not above 0.

    One feature of variance 1, all of it between the classes; then half of it.

    >>> y = torch.tensor([0, 0, 1, 1])
    >>> round(h_score(torch.tensor([[-1.0], [-1], [1], [1]]), y, 2, ridge=1e-9), 6)
    1.0
    >>> round(h_score(torch.tensor([[0.0], [-2], [0], [2]]), y, 2, ridge=1e-9), 6)
    0.5
    """
    if not 0 < ridge < math.inf:
        raise ConfigError(say("ridge", "must be above 0", ridge))
    f = _features(features, y, classes)
    f = f - f.mean(0)
    covariance = f.T @ f / len(f)
    mean = float(covariance.diagonal().mean())
    if mean <= 0:
        return 0.0
    counts = torch.bincount(y.cpu(), minlength=classes).double()
    sums = torch.zeros(classes, f.shape[1], dtype=torch.float64).index_add_(0, y.cpu(), f)
    means = sums / counts.clamp_min(1)[:, None] * (counts / len(f)).sqrt()[:, None]
    covariance.diagonal().add_(ridge * mean)
    return float((means * torch.linalg.solve(covariance, means.T).T).sum())


def logme(features: Tensor, y: Tensor, classes: int, *, tolerance: float = 1e-8, steps: int = 1000) -> float:
    """Logarithm of maximum evidence per picture, You et al. 2021, arXiv:2102.11005, mean over the classes that occur.

    Bayesian linear regression of each class's 0/1 column on the features, with weights of precision alpha and noise of
    precision beta, both at the fixed point of the evidence. The term of log alpha counts the *rank* of the features:
    where they have fewer independent columns than D (always if N < D) the widely used code counts D, which is wrong by
    (D - rank) / 2 log alpha, so that values there differ from published ones.

    Args:
        features: what the source's last layer reads, [N, D].
        y: target labels, [N].
        classes: T.
        tolerance: the iteration ends when neither precision changes by more than this, relatively.
        steps: most iterations.

    Returns:
        The evidence. Residuals below `NOISE_FLOOR` count as that, so that an exact fit gives a high value, not
        infinity. Features that are all 0 give the evidence of noise alone.

    Raises:
        DataError: as for `leep`.

    >>> y = torch.tensor([0, 1] * 20)
    >>> good, bad = torch.eye(2)[y] + 0.1 * torch.randn(40, 2), torch.randn(40, 2)
    >>> logme(good, y, 2) > logme(bad, y, 2)
    True
    """
    f = _features(features, y, classes)
    seen = torch.bincount(y.cpu(), minlength=classes) > 0
    targets = torch.nn.functional.one_hot(y.cpu(), classes).double()[:, seen]
    found = _Regression(f, targets)
    return float(found.evidence(*found.precisions(tolerance, steps)).mean())


def log_evidence(features: Tensor, target: Tensor, alpha: float, beta: float) -> float:
    """Log evidence of the regression in `logme` at given precisions, straight from its definition.

    ``log N(target; 0, I / beta + F F^T / alpha)``. Slow (N^3) and exact: what `logme` is tested against.

    Args:
        features: F, [N, D].
        target: [N].
        alpha: precision of the weights.
        beta: precision of the noise.

    Raises:
        DataError: a value is not finite, or the shapes do not fit.

    >>> round(log_evidence(torch.zeros(1, 1), torch.zeros(1), 1.0, 1.0), 6) == round(-0.5 * math.log(2 * math.pi), 6)
    True
    """
    f, t = features.detach().cpu().double(), target.detach().cpu().double()
    if f.ndim != 2 or t.shape != f.shape[:1] or not bool(f.isfinite().all() and t.isfinite().all()):
        raise DataError(say("features", "must be finite numbers [N, D] with a target [N]", (f.shape, t.shape)))
    covariance = f @ f.T / alpha + torch.eye(len(f), dtype=torch.float64) / beta
    low = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(low, t[:, None], upper=False)
    return float(-0.5 * (white**2).sum() - low.diagonal().log().sum() - len(f) / 2 * math.log(2 * math.pi))


def knn(features: Tensor, y: Tensor, *, k: int = 5, metric: str = "cosine") -> float:
    """Leave-one-out accuracy of k nearest neighbours in feature space.

    Every picture is classified by the k others that are nearest. Of classes with equal votes the one with the nearer
    neighbours wins; of neighbours equally near, the one that comes first.

    Args:
        features: what the source's last layer reads, [N, D].
        y: target labels, [N].
        k: neighbours; all others if there are fewer.
        metric: "cosine" (features of length 0 are unlike everything) or "euclidean".

    Returns:
        A share of the N pictures.

    Raises:
        DataError: as for `leep`.
        ConfigError: `k` is below 1, or the metric is unknown.

    >>> f = torch.tensor([[0.0, 1], [0.1, 1], [0.2, 1], [5, 1], [6, 1]])
    >>> knn(f, torch.tensor([0, 0, 0, 1, 1]), k=1, metric="euclidean")
    1.0
    >>> knn(f, torch.tensor([0, 1, 0, 1, 0]), k=1, metric="euclidean")
    0.0
    """
    if k < 1 or metric not in ("cosine", "euclidean"):
        raise ConfigError(say("k and metric", "must be 1 or more, and cosine or euclidean", (k, metric)))
    labels = y.cpu()
    classes = int(labels.max()) + 1 if len(labels) else 1
    f = _features(features, y, classes)
    k = min(k, len(f) - 1)
    if metric == "cosine":
        f = torch.nn.functional.normalize(f, dim=1)
        far = 1 - f @ f.T
    else:
        far = torch.cdist(f, f)
    far.fill_diagonal_(math.inf)
    near = labels[far.sort(dim=1, stable=True).indices[:, :k]]
    weights = 1 + 1e-3 / torch.arange(1, k + 1, dtype=torch.float64)
    votes = torch.zeros(len(f), classes, dtype=torch.float64).scatter_add_(1, near, weights.expand(len(f), k))
    return float((votes.argmax(1) == labels).double().mean())


class _Regression:
    """Bayesian linear regression of T targets on the same features, in the features' singular directions.

    Args:
        features: F, [N, D].
        targets: [N, T].
    """

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        u, s, _ = torch.linalg.svd(features, full_matrices=False)
        keep = s > s[0] * max(features.shape) * torch.finfo(torch.float64).eps if len(s) else s > 0
        self.n = len(features)
        self.values = s[keep, None] ** 2  # [k, 1]
        self.along = (u[:, keep].T @ targets) ** 2  # [k, T]
        self.beside = ((targets**2).sum(0) - self.along.sum(0)).clamp_min(0)  # [T]

    def precisions(self, tolerance: float, steps: int) -> tuple[Tensor, Tensor]:
        """Fixed point of alpha and beta, [T] each (MacKay's iteration)."""
        scale = float(self.values.max()) if len(self.values) else 1.0
        low, high = (r * scale for r in _RATIOS)
        ratio = torch.full_like(self.beside, scale)
        alpha, beta = ratio, torch.ones_like(ratio)
        for _ in range(steps):
            spread, residual = self._moments(ratio)
            used = (self.values / (self.values + ratio)).sum(0)
            beta_new = (self.n - used).clamp_min(1e-12) / residual.clamp_min(NOISE_FLOOR * self.n)
            wished = used / (spread * beta_new).clamp_min(1e-300) if len(self.values) else ratio
            ratio = wished.clamp(low, high)
            before, (alpha, beta) = (alpha, beta), (ratio * beta_new, beta_new)
            change = max(float((a / b).log().abs().max()) for a, b in zip((alpha, beta), before, strict=True))
            if change < tolerance:
                break
        return alpha, beta

    def evidence(self, alpha: Tensor, beta: Tensor) -> Tensor:
        """Log evidence per example at these precisions, [T]."""
        ratio = alpha / beta
        spread, residual = self._moments(ratio)
        fits = beta * residual + alpha * spread + torch.log1p(self.values / ratio).sum(0)
        return (self.n * (beta.log() - math.log(2 * math.pi)) - fits) / (2 * self.n)

    def _moments(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norm of the mean weights and of the residual, [T] each, at ratio = alpha / beta."""
        spread = (self.values * self.along / (self.values + ratio) ** 2).sum(0)
        residual = (self.along * (ratio / (self.values + ratio)) ** 2).sum(0) + self.beside
        return spread, residual


def _conditional(joint: Tensor) -> Tensor:
    """P(y | z) from P(y, z) [T, S]; 0 where z never occurs."""
    total = joint.sum(0, keepdim=True)
    return torch.where(total > 0, joint / total.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def _probabilities(probabilities: Tensor, y: Tensor, classes: int) -> Tensor:
    p = _table("probabilities", probabilities, y, classes)
    if bool((p < 0).any()) or not torch.allclose(p.sum(1), torch.ones(len(p), dtype=torch.float64), atol=1e-3):
        got = (float(p.min()), float(p.sum(1).max()))
        raise DataError(say("probabilities", "must be 0 or more and add up to 1 in every row", got, "Use softmax."))
    return p / p.sum(1, keepdim=True)


def _features(features: Tensor, y: Tensor, classes: int) -> Tensor:
    return _table("features", features, y, classes)


def _table(name: str, value: Tensor, y: Tensor, classes: int) -> Tensor:
    """A table [N, D] in float64 on the CPU, checked against its labels."""
    if value.ndim != 2 or not value.shape[1] or y.ndim != 1 or len(value) != len(y):
        got = (tuple(value.shape), tuple(y.shape))
        raise DataError(say(name, "must be [N, D] with labels [N]", got))
    if y.is_floating_point() or (len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes):
        raise DataError(say("y", f"must be class numbers from 0 to {classes - 1}", y.unique().tolist()[:10]))
    if len(y.unique()) < 2:
        raise DataError(say("y", "must have two classes or more", y.unique().tolist(), "Take more examples."))
    if not bool(value.isfinite().all()):
        bad = int((~value.isfinite()).any(1).sum())
        raise DataError(say(name, "must be finite", f"{bad} of {len(value)} rows with NaN or infinity"))
    return value.detach().cpu().double()
