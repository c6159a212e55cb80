"""How a model is fed and read, found or set, proved on labelled images and recorded: its contract.

`establish` is the verb. No Prefect here.

establish     finds a contract or takes what is set, and proves it
contract      the record: feed, outputs, order of classes, layer, checks
candidates    which feeds are tried, the likeliest first
evidence      how well each candidate explains the labels, by rounds
feed_choice   which feed it is, and what is doubtful about it
function      whether the model is a function of one image
output_order  whether another order of classes is far more accurate
"""

from tasks.contract.contract import Check, Contract, FeedTrial
from tasks.contract.establish import establish

__all__ = ["Check", "Contract", "FeedTrial", "establish"]
