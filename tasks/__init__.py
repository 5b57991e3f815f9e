"""Inner tasks and unrolled problems. To add one: write a factory, import it here.

To add a fixed member of a family: one line in `metaopt.tasks.zoo`.
"""

from metaopt import Task, UnrolledProblem, factories
from metaopt.tasks import datasets as datasets
from metaopt.tasks import image_sets as image_sets
from metaopt.tasks.analytic import influence_balancing as influence_balancing
from metaopt.tasks.analytic import linear_recursion as linear_recursion
from metaopt.tasks.analytic import quadratic as quadratic
from metaopt.tasks.augment import augment as augment
from metaopt.tasks.autoencoders import autoencoder as autoencoder
from metaopt.tasks.autoencoders import vae as vae
from metaopt.tasks.classic_control import acrobot as acrobot
from metaopt.tasks.classic_control import cartpole as cartpole
from metaopt.tasks.classic_control import pendulum as pendulum
from metaopt.tasks.classification import digits_mlp as digits_mlp
from metaopt.tasks.convolutions import image_cnn as image_cnn
from metaopt.tasks.convolutions import resnet as resnet
from metaopt.tasks.copy_task import copy_task as copy_task
from metaopt.tasks.es_gradient import es_gradient as es_gradient
from metaopt.tasks.family import small_mlps as small_mlps
from metaopt.tasks.gymnax_problem import gymnax as gymnax
from metaopt.tasks.held_out import diabetes_mlp as diabetes_mlp
from metaopt.tasks.held_out import digits_autoencoder as digits_autoencoder
from metaopt.tasks.held_out import digits_cnn as digits_cnn
from metaopt.tasks.image_mlp import image_mlp as image_mlp
from metaopt.tasks.images import cifar_cnn as cifar_cnn
from metaopt.tasks.images import fashion_mlp as fashion_mlp
from metaopt.tasks.language_models import rnn_lm as rnn_lm
from metaopt.tasks.language_models import transformer_lm as transformer_lm
from metaopt.tasks.locomotion import ant as ant
from metaopt.tasks.locomotion import half_cheetah as half_cheetah
from metaopt.tasks.locomotion import hopper as hopper
from metaopt.tasks.locomotion import humanoid as humanoid
from metaopt.tasks.locomotion import swimmer as swimmer
from metaopt.tasks.locomotion import walker2d as walker2d
from metaopt.tasks.lorenz import lorenz as lorenz
from metaopt.tasks.morris_lecar import morris_lecar_integration as morris_lecar_integration
from metaopt.tasks.morris_lecar import morris_lecar_memory as morris_lecar_memory
from metaopt.tasks.nested import nested as nested
from metaopt.tasks.neural_ode import neural_ode_robertson as neural_ode_robertson
from metaopt.tasks.patches import mlp_mixer as mlp_mixer
from metaopt.tasks.patches import vit as vit
from metaopt.tasks.progress import progress as progress
from metaopt.tasks.progress import references as references
from metaopt.tasks.quadratics import quadratics as quadratics
from metaopt.tasks.samplers import sample_tasks as sample_tasks
from metaopt.tasks.signals import signal_cnn as signal_cnn
from metaopt.tasks.signals import signal_mlp as signal_mlp
from metaopt.tasks.tables import table_mlp as table_mlp
from metaopt.tasks.toy_regression import toy_regression as toy_regression
from metaopt.tasks.tune_hyperparameters import tune_hyperparameters as tune_hyperparameters
from metaopt.tasks.zoo import members

TASKS = factories(globals(), Task) | members()
PROBLEMS = factories(globals(), UnrolledProblem)
