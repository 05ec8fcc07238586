"""For authors of methods and sources: tiny fakes and the contract test."""

from reprogram.testing.contract import ContractError, check_method
from reprogram.testing.fake_model import FakeModel
from reprogram.testing.fake_server import FakeServer, Quirks
from reprogram.testing.fakes import TinyNet, tiny_source, tiny_task
from reprogram.testing.language import tiny_language_model, tiny_text_source, tiny_text_task, tiny_tokenizer
from reprogram.testing.oracle import Brightest, CopiesLabel, Look, OracleSource, PointAt, Sighting
from reprogram.testing.scripted import PromptFake, hash_source, ngram_source, scripted_source

__all__ = [
    "Brightest",
    "ContractError",
    "CopiesLabel",
    "FakeModel",
    "FakeServer",
    "Look",
    "OracleSource",
    "PointAt",
    "PromptFake",
    "Quirks",
    "Sighting",
    "TinyNet",
    "check_method",
    "hash_source",
    "ngram_source",
    "scripted_source",
    "tiny_language_model",
    "tiny_source",
    "tiny_task",
    "tiny_text_source",
    "tiny_text_task",
    "tiny_tokenizer",
]
