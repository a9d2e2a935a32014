"""The lab: trains, measures and compares methods on real data (`pip install maxsup[lab]`)."""
