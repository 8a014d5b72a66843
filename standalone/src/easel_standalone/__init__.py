"""The whole platform on one machine: `easel up`."""
