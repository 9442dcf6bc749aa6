"""Pictures as files: their pixels, for check and training, and what they state of rights."""
