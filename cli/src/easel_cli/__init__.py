"""Easel: turn trained models into online inference services on your own machines."""
