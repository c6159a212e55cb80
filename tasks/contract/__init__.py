"""How a model is fed and read, found or set, proved on labelled images and recorded: its contract.

`establish` is the verb. No Prefect here.
"""

from tasks.contract.contract import Check, Contract, FeedTrial
from tasks.contract.establish import establish

__all__ = ["Check", "Contract", "FeedTrial", "establish"]
