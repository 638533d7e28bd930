"""Whole sweeps and jobs of several: checked, planned, run, resumed, compared, cleaned up after."""
