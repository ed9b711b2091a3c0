"""Shared by everything that is trained: the loop, network steps, weights with a model card, generated samples.

loop.py         steps or minutes, exact stop and resume, metrics, evaluation, best and last checkpoint
network.py      one step of a network: schedule, clipping, mixed precision, moving averages
weights.py      .safetensors with a model card
samples.py      generated samples in shards on disk
group.py        several processes (torchrun)
clock.py, tensorboard.py
"""
