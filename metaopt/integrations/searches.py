"""Other people's black-box searches behind one interface: ask for thetas, tell their losses.

All of them minimise. A search is a `Search`, made by name: ``evosax:CMA_ES``, ``cma:CMA``,
``nevergrad:TBPSA``, ``pypop7:MAES``. None of the libraries is imported before one is asked for.
"""

import pickle
import pkgutil
import queue
import threading
import warnings
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.config.registry import choose
from metaopt.core.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


class Search(NamedTuple):
    """A search that is under way; it changes in place.

    Attributes:
      ask: ``() -> thetas``, float64 or float32 ``[n, d]``; n is the population, or 1.
      tell: ``(thetas, losses [n])``, of the thetas that were asked for last.
      best: ``() -> theta [d]``: the mean of a distribution, else the best so far.
      save: ``() -> bytes``, from which `make_search` goes on.
      resumes: whether it does.
    """

    ask: Callable[[], np.ndarray]
    tell: Callable[[np.ndarray, np.ndarray], None]
    best: Callable[[], np.ndarray]
    save: Callable[[], bytes]
    resumes: bool = True


class Start(NamedTuple):
    """Where a search starts.

    Attributes:
      theta: float32 ``[d]``.
      sigma: how far around it the search looks at first, where it has such a number.
      population: thetas between two updates.
      seed: of everything random.
    """

    theta: np.ndarray
    sigma: float
    population: int
    seed: int


def make_search(name: str, start: Start, saved: bytes | None = None) -> Search:
    """The search of a name, at its start or where it was saved.

    Args:
      name: ``LIBRARY:ALGORITHM``.
      start: where it starts.
      saved: what `Search.save` gave. It is unpickled: only from whom you trust.

    Raises:
      UserError: for an unknown name, or a library that is not installed.
    """
    kind, make = require_known(name)
    made = _named(name, make)(kind, start, saved)
    ask, tell, best, save, resumes = made
    named = partial(_named, name)
    return Search(named(ask), named(tell), named(best), named(save), resumes)


def require_known(name: str) -> tuple[Any, Callable[[Any, Start, bytes | None], Search]]:
    """An algorithm, and what makes a search of it.

    Raises:
      UserError: as `make_search`.
    """
    library, colon, algorithm = name.partition(":")
    if not colon:
        raise UserError(
            f"outer.search is LIBRARY:ALGORITHM, such as evosax:CMA_ES, got {name!r}; libraries: "
            f"{', '.join(LIBRARIES)}."
        )
    load = choose("search library", library, LIBRARIES)
    try:
        known, make = _quiet(load)()
    except ImportError as error:
        raise UserError(
            f"outer.search={name} needs {library}: pip install 'metaopt[{library}]' ({error})."
        ) from error
    return choose(f"algorithm of {library}", algorithm, known), make


def _quiet(function: F) -> F:
    """The function without what others' code warns of, and with JAX's usual promotion for it."""

    @wraps(function)
    def quiet(*args):
        with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
            warnings.simplefilter("ignore")
            return function(*args)

    return cast(F, quiet)


def _named(name: str, function: F) -> F:
    """The function, `_quiet`, with its faults as sentences that say whose they are."""

    @wraps(function)
    def named(*args):
        try:
            return _quiet(function)(*args)
        except UserError:
            raise
        except Exception as error:  # whatever others' code raises
            raise UserError(
                f"outer.search={name} failed ({type(error).__name__}: {error}): choose another "
                "algorithm, or change estimator.particles or estimator.sigma."
            ) from error

    return cast(F, named)


def _evosax():
    from evosax.algorithms import algorithms
    from evosax.algorithms.population_based.base import PopulationBasedAlgorithm

    def is_complete(kind: Any) -> bool:
        given = ("self", "population_size", "solution")
        return all(p.default is not Parameter.empty or p.name in given
                   for p in signature(kind.__init__).parameters.values())  # fmt: skip

    def make(kind: Any, start: Start, saved: bytes | None) -> Search:
        schedule = {"std_schedule": optax.constant_schedule(start.sigma)}
        options = schedule if "std_schedule" in signature(kind.__init__).parameters else {}
        theta = jnp.asarray(start.theta)
        algorithm = kind(population_size=start.population, solution=theta, **options)
        params = algorithm.default_params
        if hasattr(params, "std_init"):
            params = params.replace(std_init=jnp.float32(start.sigma))
        key = lambda count: jax.random.fold_in(jax.random.key(start.seed), count)
        begins = issubclass(kind, PopulationBasedAlgorithm)
        noise = start.sigma * jax.random.normal(key(0), (start.population, len(theta)))
        first = (theta + noise.at[0].set(0.0)) if begins else None
        state, count = (None if begins else algorithm.init(key(0), theta, params)), 0
        if saved is not None:
            leaves, count = pickle.loads(saved)
            like = jax.eval_shape(lambda: _started(algorithm, first, theta, key(0), params))
            state = jax.tree.unflatten(jax.tree.structure(like), leaves)

        def ask():
            nonlocal state
            if state is None:
                return np.asarray(first)
            thetas, state = algorithm.ask(key(2 * count + 1), state, params)
            return np.asarray(thetas)

        def tell(thetas, losses):
            nonlocal state, count
            thetas, losses = jnp.asarray(thetas), jnp.asarray(losses, jnp.float32)
            if state is None:
                state = algorithm.init(key(0), thetas, losses, params)
            else:
                state, _ = algorithm.tell(key(2 * count + 2), thetas, losses, state, params)
            count += 1

        def best():
            if state is None:
                return start.theta
            return np.asarray(
                algorithm.get_best_solution(state) if begins else algorithm.get_mean(state)
            )

        return Search(
            ask, tell, best, lambda: pickle.dumps((jax.device_get(jax.tree.leaves(state)), count))
        )

    return {name: kind for name, kind in algorithms.items() if is_complete(kind)}, make


def _started(algorithm: Any, first: Any, theta: jax.Array, key: jax.Array, params: Any) -> Any:
    """An evosax state, for its structure."""
    if first is None:
        return algorithm.init(key, theta, params)
    return algorithm.init(key, first, jnp.zeros(len(first)), params)


def _cma():
    import cma

    def make(kind: Any, start: Start, saved: bytes | None) -> Search:
        options = {
            "popsize": start.population,
            "verbose": -9,
            "seed": np.nan,  # or it seeds NumPy's generator, which is everybody's
            "randn": np.random.RandomState(start.seed).randn,
        }
        strategy = kind(start.theta, start.sigma, options) if saved is None else pickle.loads(saved)
        return Search(
            lambda: np.stack(strategy.ask()),
            lambda thetas, losses: strategy.tell(list(thetas), losses.tolist()),
            lambda: start.theta if strategy.countiter == 0 else strategy.result.xfavorite,
            lambda: pickle.dumps(strategy),
        )

    return {"CMA": cma.CMAEvolutionStrategy}, make


def _nevergrad():
    import nevergrad

    def make(kind: Any, start: Start, saved: bytes | None) -> Search:
        if saved is None:
            space = nevergrad.p.Array(init=start.theta).set_mutation(sigma=start.sigma)
            space.random_state = np.random.RandomState(start.seed)
            optimizer = kind(parametrization=space, num_workers=start.population)
        else:
            optimizer = pickle.loads(saved)
        asked: list[Any] = []

        def ask():
            asked[:] = [optimizer.ask() for _ in range(start.population)]
            return np.stack([candidate.value for candidate in asked])

        def tell(thetas, losses):
            for candidate, loss in zip(asked, losses.tolist(), strict=True):
                optimizer.tell(candidate, loss)

        return Search(
            ask,
            tell,
            lambda: optimizer.provide_recommendation().value,
            lambda: pickle.dumps(optimizer),
        )

    return dict(nevergrad.optimizers.registry), make


def _pypop7():
    from pypop7 import optimizers

    packages = pkgutil.walk_packages(optimizers.__path__, f"{optimizers.__name__}.")
    paths = {p.name.rpartition(".")[2].upper(): p.name for p in packages if not p.ispkg}
    known = {name: path for name, path in paths.items() if name.isalnum()}
    return known, _in_a_thread


def _in_a_thread(path: str, start: Start, saved: bytes | None) -> Search:
    """PyPop7 calls the loss itself, one theta at a time: its loop has a thread to itself."""
    if saved is not None:
        raise UserError(
            "PyPop7's optimizers cannot be saved, so that a search by one cannot be resumed: "
            "choose another --out, with --start-from this run to begin at its theta."
        )
    by_name = {name.upper(): thing for name, thing in vars(import_module(path)).items()}
    kind = by_name[path.rpartition(".")[2].upper()]
    thetas: queue.Queue[Any] = queue.Queue()
    losses: queue.Queue[Any] = queue.Queue()

    def measure(theta: np.ndarray) -> float:
        thetas.put(theta)
        if (loss := losses.get()) is None:
            raise SystemExit  # nobody asks any more
        return loss

    wide = np.full(len(start.theta), 1e3)
    problem = {
        "fitness_function": measure,
        "ndim_problem": len(start.theta),
        "lower_boundary": start.theta - wide,
        "upper_boundary": start.theta + wide,
        "initial_lower_boundary": start.theta - start.sigma,
        "initial_upper_boundary": start.theta + start.sigma,
    }
    options = {
        "mean": start.theta,
        "x": start.theta,
        "sigma": start.sigma,
        "seed_rng": start.seed,
        "n_individuals": start.population,
        "verbose": 0,
        "max_function_evaluations": np.inf,
    }
    optimizer = kind(problem, options)

    def work():
        try:
            optimizer.optimize()
            thetas.put(RuntimeError("it has ended by itself"))
        except BaseException as error:
            thetas.put(error)

    threading.Thread(target=work, daemon=True).start()

    asked: list[Any] = []  # and not told yet

    def ask():
        asked[:] = asked or [thetas.get()]
        if isinstance(asked[0], BaseException):
            raise asked[0]
        return asked[0][None]

    def tell(_, told):
        asked.clear()
        losses.put(float(told[0]))

    def best():
        found = optimizer.best_so_far_x
        return start.theta if found is None else found

    return Search(ask, tell, best, lambda: b"", resumes=False)


LIBRARIES = {"evosax": _evosax, "cma": _cma, "nevergrad": _nevergrad, "pypop7": _pypop7}
"""Each gives its algorithms by name, and what makes a search of one."""

EXAMPLES = {
    "evosax": "evosax:CMA_ES, evosax:Open_ES, ...; in JAX",
    "cma": "cma:CMA; pycma",
    "nevergrad": "nevergrad:TBPSA, nevergrad:CMA, ...",
    "pypop7": "pypop7:MAES, pypop7:CMAES, ...; one theta at a time, not resumed; GPL-3",
}
"""For `metaopt list`, which imports none of them."""
