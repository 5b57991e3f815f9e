"""Members at random: within their ranges, the same for the same seed, and never too dear."""

import jax
import pytest

from metaopt import UserError, flops_of
from metaopt.config.components import make_task
from metaopt.config.schema import Config, trained_tasks
from metaopt.tasks import sample_tasks
from metaopt.tasks.samplers import SAMPLERS
from metaopt.tasks.zoo import FAMILIES


@pytest.mark.slow
@pytest.mark.parametrize("family", SAMPLERS)
def test_members_are_tasks_and_fixed_by_the_seed(family):
    texts = sample_tasks(family, 2, seed=3, flops_at_most=1e9)
    assert texts == sample_tasks(family, 3, seed=3, flops_at_most=1e9)[:2]
    assert texts[0] != sample_tasks(family, 1, seed=4, flops_at_most=1e9)[0]
    assert len(set(texts)) == 2
    for text in texts:
        task = make_task(text)
        start = lambda key, task=task: task.init(task.sample(key), key)
        params = jax.eval_shape(start, jax.random.key(0))
        assert jax.tree.leaves(params) and flops_of(task) <= 1e9
    parts = trained_tasks(Config(mixture=texts))[1:]
    assert [" ".join((part.name, *part.args)) for part in parts] == list(texts)


def test_every_family_has_a_sampler():
    assert {family.__name__ for family in FAMILIES} == set(SAMPLERS)


def test_faults_are_sentences():
    with pytest.raises(UserError, match="flops_at_most must be a number above 0, got '1e6'"):
        sample_tasks("image_mlp", 1, flops_at_most="1e6")
    with pytest.raises(UserError, match="unknown family 'image_mlps': did you mean 'image_mlp'"):
        sample_tasks("image_mlps", 1)
    with pytest.raises(UserError, match=r"twenty members of table_mlp .* flops_at_most=1 a"):
        sample_tasks("table_mlp", 1, flops_at_most=1)
