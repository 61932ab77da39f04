"""Ships: checkpoints to bundles, imagery to satellite indexes."""
