"""The data contract: reading it, comparing two of them, and what it binds."""

from data_contracts.dataset.contract.document import DataContract, load_contract, parse_contract

__all__ = ["DataContract", "load_contract", "parse_contract"]
