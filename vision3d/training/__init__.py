"""Shared by everything that is trained: the loop, network steps, weights with a model card, generated samples.

loop.py         steps or minutes, exact stop and resume, metrics, evaluation, best and last checkpoint
learning.py     from a network and its loss to weights with metrics, in one cycle
network.py      one step of a network: schedule, clipping, mixed precision, moving averages
options.py      options that all trainings of networks have in common
weights.py      .safetensors with a model card
models.py       networks with their configurations in such files
samples.py      generated samples in shards on disk
group.py        several processes (torchrun)
clock.py, tensorboard.py
"""
