"""What a SOURCE of `shards build` can be, in words: apart from the sources, which are slow to import."""

KINDS = "a folder (class = subfolder), a .zip of one, `digits:` (scikit-learn's), or `idx:FOLDER` (MNIST-family files)"
