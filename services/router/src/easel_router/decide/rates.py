"""Shares with their uncertainty, and evidence that one share is above another. Pure.

Sources: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927);
R. G. Newcombe, "Interval estimation for the difference between independent proportions: comparison of eleven methods",
Statistics in Medicine 17 (1998), method 10; for the evidence, the mean of likelihood ratios over a grid of
alternatives, a test martingale: A. Ramdas, P. Grünwald, V. Vovk, G. Shafer, "Game-theoretic statistics and safe
anytime-valid inference", Statistical Science 38 (2023).
"""

from __future__ import annotations

import math

Z_95 = 1.959964
Z_99 = 2.575829
RATIOS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""How many times as often: the alternatives that the evidence is spread over."""


def wilson(hits: int, of: int, z: float = Z_95) -> tuple[float, float]:
    """Bounds of a share of which `hits` of `of` were seen; (0, 1) where nothing was."""
    if of == 0:
        return 0.0, 1.0
    share, square = hits / of, z * z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = z * math.sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def excess(hits: int, of: int, noise: int, of_noise: int, z: float = Z_95) -> tuple[float, float, float]:
    """How much a share is above another, and bounds of that, by Newcombe's method.

    The two are taken as independent. Ours are not quite: the noise is seen in a part of the same samples, against the
    same answers of stable. What they have in common makes the true bounds narrower, not wider."""
    low, high = wilson(hits, of, z)
    noise_low, noise_high = wilson(noise, of_noise, z)
    share = hits / of if of else 0.0
    noisy = noise / of_noise if of_noise else 0.0
    found = share - noisy
    below = math.hypot(share - low, noise_high - noisy)
    above = math.hypot(high - share, noisy - noise_low)
    return found, max(-1.0, found - below), min(1.0, found + above)


def log_evidence(hits: int, of: int, noise: int, of_noise: int) -> float:
    """Logarithm of how much likelier the counts are if the first share is above the second than if it is not.

    If it is not, an event falls on the first side with probability w = of / (of + of_noise), and the chance that this
    ever exceeds log(1/α), however often one looks, is at most α. Negative: the counts speak for no excess.
    """
    if not of or not of_noise:
        return 0.0
    w = of / (of + of_noise)
    logs = []
    for ratio in RATIOS:
        q = w * ratio / (w * ratio + 1 - w)
        logs.append(hits * math.log(q / w) + noise * math.log((1 - q) / (1 - w)))
    most = max(logs)
    return most + math.log(math.fsum(math.exp(one - most) for one in logs) / len(logs))
