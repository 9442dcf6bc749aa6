"""A simulator of poisoned federations that anyone can run: `python -m benchmarks.attacks`.

`library` holds the attacks, `rules` the defences, `digits_cell` and `lora_cell` the federations.
"""
