"""Your own physics engine for `vision3d simulate`: rigid bodies, which bounce off nothing and slide without friction.

cd examples && vision3d simulate object.ply --engine 09_own_engine:Rigid --drop 0.5 --video --out runs/rigid
"""

import math

import torch

from vision3d.stages.simulate.engines import Engine
from vision3d.stages.simulate.world.boundaries import distance
from vision3d.stages.simulate.world.world import Advance, rotation_by


class Rigid(Engine):
    name = "rigid"
    particles = None  # the whole state, so that runs resume

    def __init__(self, particles, world):
        super().__init__(particles, world)
        self.particles = particles

    def update(self, **values):
        self.particles = self.particles.replace(**values)

    def advance(self, duration, time=0.0, max_dt=math.inf):
        p, steps = self.particles, math.ceil(duration / min(max_dt, 1e-3))
        x, v, F = p.x.double(), p.v.double(), p.F_total.double()
        for rows in (p.body == body for body in p.body.unique()):
            x[rows], v[rows], turn = self.moved(x[rows], v[rows], p.mass[rows, None].double(), duration / steps, steps)
            F[rows] = turn @ F[rows]
        self.update(x=x.to(p.x), v=v.to(p.v), F_total=F.to(p.F_total))
        return Advance(steps, duration / steps, duration / steps, num_kept=0)

    def moved(self, x, v, mass, dt, steps):
        center, velocity, turn = (mass * x).sum(0) / mass.sum(), (mass * v).sum(0) / mass.sum(), torch.eye(3).double()
        arms = x - center
        inertia = (mass[..., None] * (arms.square().sum(1)[:, None, None] * turn - arms[:, :, None] * arms[:, None])).sum(0)
        spin = torch.linalg.solve(inertia, (mass * arms.cross(v, dim=1)).sum(0))
        for _ in range(steps):
            velocity = velocity + dt * x.new_tensor(self.world.gravity)
            depths, normals = distance(self.world.boundaries[0], center + arms)  # the floor
            at, normal = arms[depths < 0].mean(0), normals[0]  # the middle of the contact
            if (closing := -(velocity + spin.cross(at, dim=0)) @ normal) > 0:  # not without contact: NaN
                lever = torch.linalg.solve(inertia, at.cross(normal, dim=0))
                push = closing / (1 / mass.sum() + at.cross(normal, dim=0) @ lever)
                velocity, spin = velocity + push / mass.sum() * normal, spin + push * lever
            center, rotation = center + dt * velocity, rotation_by(spin.tolist(), dt)
            arms, turn, inertia = arms @ rotation.mT, rotation @ turn, rotation @ inertia @ rotation.mT
        return center + arms, velocity + spin.expand_as(arms).cross(arms, dim=1), turn
