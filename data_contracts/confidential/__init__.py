"""An attempt in confidential mode: from its signed records to what masks are made of."""
