"""Learning rates as functions of the step, and optimisers with a rate and a decay of their own per parameter."""

from .build import ParameterRate, build_optimizer, describe_rates, learning_rates
from .schedule import SCHEDULES, build_schedule

__all__ = ["ParameterRate", "SCHEDULES", "build_optimizer", "build_schedule", "describe_rates", "learning_rates"]
