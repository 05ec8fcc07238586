"""For authors of methods and sources: tiny fakes and the contract test."""

from reprogram.testing.contract import ContractError, check_method
from reprogram.testing.fakes import TinyNet, tiny_source, tiny_task

__all__ = ["ContractError", "TinyNet", "check_method", "tiny_source", "tiny_task"]
