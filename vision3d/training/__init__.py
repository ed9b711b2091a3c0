"""What everything that learns shares: the loop, the step of a network, weights with their card, generated samples.

loop.py         steps or minutes, stop and resume to the bit, metrics, evaluation, best and last checkpoint
network.py      one step of a network: schedule, clipping, mixed precision, moving averages
weights.py      .safetensors with a card
samples.py      generated samples in shards on disk
group.py        several processes (torchrun)
clock.py, tensorboard.py
"""
