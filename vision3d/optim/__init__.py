"""What a fit minimises and how: losses, metrics, schedules, the optimiser and the strategies that move Gaussians."""
