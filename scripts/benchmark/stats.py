"""Intervals and ratios of few numbers, without a library: Student's t and Fisher's F from the incomplete beta function."""

from __future__ import annotations

from math import exp, lgamma, log, sqrt
from typing import Callable


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def deviation(values: list[float]) -> float:
    """The standard deviation of a sample; 0 of a single number."""
    middle = mean(values)
    return sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def interval(values: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Of the mean, by Student's t; all numbers where there are fewer than two."""
    if len(values) < 2:
        return float("-inf"), float("inf")
    half = t_quantile(1 - (1 - confidence) / 2, len(values) - 1) * deviation(values) / sqrt(len(values))
    return mean(values) - half, mean(values) + half


def t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t stays below with this probability, of at least a half."""
    return inverse(lambda t: 1 - 0.5 * incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)), probability)


def f_quantile(probability: float, above: int, below: int) -> float:
    """The value that a ratio of two mean squares of these degrees of freedom stays below with this probability."""
    return inverse(lambda f: incomplete_beta(above / 2, below / 2, above * f / (above * f + below)), probability)


def inverse(rising: Callable[[float], float], value: float) -> float:
    low, high = 0.0, 1.0
    while rising(high) < value:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return high


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised one, by the continued fraction of Numerical Recipes 6.4."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1 - x))
    # Beyond its middle the fraction converges slowly; the other tail's does not.
    if x < (a + 1) / (a + b + 2):
        return front * fraction(a, b, x) / a
    return 1 - front * fraction(b, a, 1 - x) / b


def fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    result = d
    for m in range(1, 300):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + numerator * d) or tiny)
            c = (1 + numerator / c) or tiny
            result *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return result
