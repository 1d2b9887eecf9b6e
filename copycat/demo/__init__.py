"""``copycat demo``: a real cluster, real work, real kills, and a proof at the end."""
