"""Matrix groups: SO(2), SO(3), SO(n), SE(3), Sim(3), SL(n), GL+(n) and the symmetric positive definite matrices.

One module per group, with the same function names in each: `exp` and `log`, `adjoint`, `ad` (its derivative),
`left_jacobian`, `right_jacobian` and their inverses. Jacobians map a small change of the tangent to one on the group:
exp(x + dx) = exp(J_left(x) dx) exp(x) = exp(x) exp(J_right(x) dx), to first order.
"""
