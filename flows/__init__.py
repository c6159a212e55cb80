"""Prefect flows and the command `nightlens`: recipes that say what runs, and nothing of how it is computed.

nightly       the night, in one screen
explain       an explanation on demand: a model that exists, nothing is trained
floor         how much the reasons of networks differ by chance, ahead of nights
housekeeping  old nights go, with the parts and models that no night refers to
parameters    the parameters of a night, from a YAML file, options, or an unfinished night
cli           the command: one clear line and an exit code where something is wrong
commands/     what the command understands and shows
server/       a Prefect server of our own
service/      `nightlens up`: everything that nights need to run by themselves
terminal/     what people and log collectors read
"""
