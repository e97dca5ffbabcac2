"""Models that answer the stages, behind one protocol; `registry` knows them by the names of the config."""
