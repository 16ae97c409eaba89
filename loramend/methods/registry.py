"""The methods by the type of their step."""

from collections.abc import Mapping
from typing import Any

from loramend.methods.base import Method
from loramend.methods.csu import csu
from loramend.methods.intruders import intruders
from loramend.methods.random_subspace import random_subspace
from loramend.methods.rescale import rescale
from loramend.methods.restore import restore
from loramend.methods.safe_lora import safe_lora
from loramend.methods.shrink import shrink

# Any: each method takes its own step's parameters; the step's `type` pairs the two.
METHODS: Mapping[str, Method[Any]] = {
    "csu": csu,
    "safe_lora": safe_lora,
    "rescale": rescale,
    "intruders": intruders,
    "restore": restore,
    "shrink": shrink,
    "random_subspace": random_subspace,
}
