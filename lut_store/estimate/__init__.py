"""Evidence → numbers with their uncertainty: pure functions of measurements, numpy and scipy only."""
