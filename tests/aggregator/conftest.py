"""Simulated federations for every test of this package."""

from tests.simulator.fixtures import make_federation as make_federation
from tests.simulator.fixtures import own_storage as own_storage
from tests.simulator.fixtures import tiny_model as tiny_model
