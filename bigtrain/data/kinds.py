"""What a SOURCE of `shards build` can be, in words: apart from the sources, which are slow to import."""

KINDS = (
    "a folder (class = subfolder), a .zip of one, `digits:` (scikit-learn's), `idx:FOLDER` (MNIST-family files), "
    "`torchvision:NAME[:ROOT]`, `hf:NAME[:SPLIT]` (Hugging Face), or shards (a folder or URL of tars, `shards:URL`)"
)
