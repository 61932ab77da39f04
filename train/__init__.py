"""Learns: data, samplers, losses and the encoder. Run from a checkout: python -m train."""
