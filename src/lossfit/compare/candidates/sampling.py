"""Settings that Optuna proposes: spread evenly before anything is known, and then where results were good."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

RANGES = {"learning_rate": (2e-3, 5e-2), "weight_decay": (1e-2, 1e1)}
"""Of what every loss is tuned in; both are searched on a logarithmic scale."""

_SPACE: dict[str, BaseDistribution] = {
    name: FloatDistribution(low, high, log=True) for name, (low, high) in RANGES.items()
}


class Tried(NamedTuple):
    """A training that is done.

    Attributes:
        setting: a number for each name in :data:`RANGES`, and for each hyper-parameter.
        value: the metric on the validation rows, higher is better; -inf if the training failed.
        pruned_at: the step at which the training was given up, None if it was not.
    """

    setting: dict[str, float]
    value: float
    pruned_at: int | None = None


def spread(count: int, seed: int) -> list[dict[str, float]]:
    """Learning rates and weight decays that fill their ranges evenly: a scrambled Halton sequence."""
    with _quietly():
        study = optuna.create_study(sampler=optuna.samplers.QMCSampler(qmc_type="halton", scramble=True, seed=seed))
        study.ask(_SPACE)  # drawn at random: the sequence starts when the sampler has seen what to fill
        return [study.ask(_SPACE).params for _ in range(count)]


def propose(
    tried: Sequence[Tried], search: dict[str, tuple[float, ...]], count: int, seed: int
) -> list[dict[str, float]]:
    """More settings, by a tree-structured Parzen estimator of where the trainings so far were good.

    Learning rate and weight decay are proposed anywhere in their ranges; a hyper-parameter is one of its values, which
    are taken as ranks. Settings of one batch keep away from each other: those proposed before are taken to be poor.

    Args:
        tried: the trainings so far, of one split.
        search: the values worth trying of each hyper-parameter.
        count: how many settings.
        seed: the same for every loss.

    Source: J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011, section 4; Optuna's TPESampler.
    """
    ranks: dict[str, BaseDistribution] = {name: IntDistribution(0, len(v) - 1) for name, v in search.items()}
    space = {**_SPACE, **ranks}
    with _quietly():
        # Optuna takes no seed of more than 32 bits.
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=1, multivariate=True, constant_liar=True, seed=seed % (1 << 32)
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for one in tried:
            params: dict[str, Any] = {name: one.setting[name] for name in RANGES}
            params |= {name: values.index(one.setting[name]) for name, values in search.items()}
            failed = one.value == float("-inf")
            if failed or one.pruned_at is not None:
                reported = {} if failed or one.pruned_at is None else {one.pruned_at: one.value}
                state, value = TrialState.PRUNED, None
            else:
                reported, state, value = {}, TrialState.COMPLETE, one.value
            study.add_trial(
                create_trial(params=params, distributions=space, value=value, state=state, intermediate_values=reported)
            )
        found = [study.ask(space).params for _ in range(count)]
    return [{name: search[name][v] if name in search else v for name, v in one.items()} for one in found]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's word about every study, and about its QMCSampler, which may change."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
