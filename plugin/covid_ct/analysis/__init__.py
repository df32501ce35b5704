"""Lungs, lesions, probability and measurements: `Volume` to `Findings`."""
