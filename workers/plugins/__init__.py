"""The bundled plugins."""
