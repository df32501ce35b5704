"""Model manifests, ONNX Runtime sessions and providers, windows over a volume."""
