"""From a finished comparison to a model that predicts: trained once more (final), stored (model), used (reading)."""
