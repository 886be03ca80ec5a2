"""The comparison: what BottleFit saves against what else a user could do."""
